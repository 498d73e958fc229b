"""A preset's model and SAE from a hub cache, by the real loaders, through the stages extract and encode.

The weights are tiny and random, the repositories' names and layouts are those of the hub.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
)

import tiny
from sae_transfer.artifacts import activations, features
from sae_transfer.core import files
from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import read_yaml
from sae_transfer.core.space import sae_features
from sae_transfer.model import encoding, loading, model_params, saes
from sae_transfer.model.model_params import SaeParams
from sae_transfer.model.pins import FILE
from sae_transfer.model.saes import load_sae
from sae_transfer.pipeline import encode, extract, inputs
from sae_transfer.pipeline.params import Params
from sae_transfer.pipeline.study import Study

ROOT = Path(__file__).parents[2]
WIDTH, D_SAE, LAYERS = 16, 64, 20
MODEL_COMMIT, SAE_COMMIT = "1" * 40, "2" * 40
TEXT = "language_model.model."
GROUPED = {
    "hidden_size": WIDTH,
    "intermediate_size": 16,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
PROMPTS = ["the model was built in Paris", "user asks a question; is it unknown?", "when was it built"]


def gemma2(n):
    return Gemma2ForCausalLM(Gemma2Config(**GROUPED, vocab_size=n, query_pre_attn_scalar=8))


def gemma3(n):
    types = ["sliding_attention", "full_attention"] * (LAYERS // 2)
    text = GROUPED | {"vocab_size": n, "sliding_window": 4, "layer_types": types}
    vision = VISION | {"image_size": 8, "patch_size": 4}
    special = {"image_token_index": n - 1, "boi_token_index": n - 2, "eoi_token_index": n - 3}
    return Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, **special)
    )


def gpt2(n):
    size = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 2, "n_positions": 64}
    return GPT2LMHeadModel(GPT2Config(**size, vocab_size=n, initializer_range=0.3, bos_token_id=0, eos_token_id=0))


def as_on_the_hub(folder, preset):
    """Rewrites a checkpoint under the names of weights that the hub's has, which newer transformers no longer write."""
    saved = load_file(folder / "model.safetensors")
    if preset.startswith("gpt2"):  # the bare model, with its causal masks
        saved = {name.removeprefix("transformer."): value for name, value in saved.items()}
        saved |= {f"h.{layer}.attn.bias": torch.ones(1, 1, 64, 64) for layer in range(LAYERS)}
    if preset.startswith("gemma-3"):
        saved = {
            re.sub(r"^(?:model\.)?language_model\.(?:model\.)?", TEXT, name): value for name, value in saved.items()
        }
        saved = {re.sub(r"^model\.(vision|multi)", r"\1", name): value for name, value in saved.items()}
        assert {name.partition(".")[0] for name in saved} == {"language_model", "vision_tower", "multi_modal_projector"}
    save_file(saved, folder / "model.safetensors", {"format": "pt"})


def weights(seed=0):
    torch.manual_seed(seed)
    parts = {"W_enc": (WIDTH, D_SAE), "W_dec": (D_SAE, WIDTH), "b_enc": (D_SAE,), "b_dec": (WIDTH,)}
    return {name: torch.randn(shape) for name, shape in parts.items()}


def gemma2_sae(folder):
    arrays = weights()
    lower = {name.replace("W_", "w_"): value.numpy() for name, value in arrays.items()}
    folder = folder / "layer_9/width_16k/average_l0_88"
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", threshold=np.full(D_SAE, 1.0, np.float32), **lower)


def gemma3_sae(folder):
    arrays = {name.replace("W_", "w_"): value for name, value in weights().items()}
    folder = folder / "resid_post/layer_17_width_65k_l0_medium"
    folder.mkdir(parents=True)
    save_file(arrays | {"threshold": torch.full((D_SAE,), 1.0)}, folder / "params.safetensors")


OLD_CONFIG = {  # as SAELens wrote it before version 6
    "architecture": "standard",
    "d_in": WIDTH,
    "d_sae": D_SAE,
    "dtype": "float32",
    "device": "cuda",
    "model_name": "gpt2-small",
    "hook_head_index": None,
    "apply_b_dec_to_input": True,
    "finetuning_scaling_factor": False,
    "prepend_bos": True,
    "context_size": 64,
}


def gpt2_sae(folder, name="v5_32k_layer_6.pt", **changes):
    (folder / name).mkdir(parents=True)
    top_k = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 5}, "normalize_activations": "layer_norm"}
    written = OLD_CONFIG | {"hook_name": "blocks.6.hook_resid_post"} | top_k | changes
    (folder / name / "cfg.json").write_text(json.dumps(written))
    save_file(weights(), folder / name / "sae_weights.safetensors")


def jumprelu(x):
    before = x @ weights()["W_enc"].numpy() + weights()["b_enc"].numpy()
    return np.where(before > 1.0, before, 0)


def linear(x):
    w = {name: value.numpy() for name, value in weights().items()}
    return np.maximum((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 0)


def layer_norm_top_5(x):
    x = x - x.mean(1, keepdims=True)
    dense = linear(x / (x.std(1, keepdims=True, ddof=1) + 1e-5))
    return np.where(dense >= np.sort(dense, axis=1)[:, -5, None], dense, 0)


FAMILIES = {  # preset: tokenizer, model, the repository of its SAEs, one of them, its layer, and what it computes
    "gemma-2-9b-it-wide": ("gemma", gemma2, "google/gemma-scope-9b-it-res", gemma2_sae, "res_9_16k", 9, jumprelu),
    "gemma-3-4b-it": ("gemma", gemma3, "google/gemma-scope-2-4b-it", gemma3_sae, "res_17_65k", 17, jumprelu),
    "gpt2-small": (
        "gpt2",
        gpt2,
        "jbloom/GPT2-Small-OAI-v5-32k-resid-post-SAEs",
        gpt2_sae,
        "res_6_32k",
        6,
        layer_norm_top_5,
    ),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """On a busy machine, two threads take ten times as long as one for models this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


@pytest.fixture(autouse=True)
def small_gemma_scope(monkeypatch):
    """SAELens knows Gemma Scope's sizes by heart; this tells it those of the tiny SAE."""
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    release = get_pretrained_saes_directory()["gemma-scope-9b-it-res-canonical"]
    monkeypatch.setattr(release, "config_overrides", {"d_in": WIDTH, "d_sae": D_SAE})


def study(preset, cache, pinned=True):
    """The preset with one dataset, layer and SAE, its files in the cache; returns (study, model's folder)."""
    tokenizer, model, repository, sae, name, layer, _ = FAMILIES[preset]
    params = read_yaml(ROOT / f"presets/{preset}.yaml")
    params["study"] |= {"datasets": ["d"], "saes": [name]}
    params["model"] |= {"layers": [layer], "dtype": "float32", "device": "cpu"}
    params["saes"][name]["override"] = True  # with random weights it explains less than nothing
    params["datasets"] = {"d": {"loader": "table", "path": "d.jsonl", "n_train": 2, "n_test": 2}}
    params["regimes"]["datasets"] = []
    Path("d.jsonl").touch()
    shutil.copy(ROOT / "versions.yaml", "versions.yaml")
    pins = {params["model"]["name"]: MODEL_COMMIT, repository: SAE_COMMIT}
    files.write_json(FILE, pins if pinned else dict.fromkeys(pins, "unpinned"))
    folder = tiny.in_cache(cache, params["model"]["name"], MODEL_COMMIT)
    made = tiny.TOKENIZERS[tokenizer]()
    torch.manual_seed(3)
    model(len(made)).save_pretrained(folder)
    as_on_the_hub(folder, preset)
    made.save_pretrained(folder)
    sae(tiny.in_cache(cache, repository, SAE_COMMIT))
    Path("params.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(params))))
    chat = pd.array([None, False, None], dtype="boolean")
    rows = {"id": list("abc"), "split": ["train", "train", "test"], "variation": "default", "prompt": PROMPTS}
    files.write_table(Path("artifacts/prompts/d.parquet"), pd.DataFrame(rows | {"chat": chat}))
    opened = Study.open()
    inputs.run(opened)
    return opened, folder


def source(sae):
    """What the features' file says of the SAE that made them."""
    return json.loads(files.read_about(Path(f"artifacts/features/{sae}/d.safetensors"))["source"])


def expected_streams(folder, layer, texts, plain):
    """By transformers' own `hidden_states` of the whole model; texts with their special tokens, but for `plain`."""
    whole = AutoModel.from_pretrained(folder, dtype="float32", attn_implementation="eager").eval()
    tokenizer = loading.load_model(model_params.ModelParams(name=str(folder), layers=(0,), device="cpu"))[1]
    rows = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=plain, return_tensors="pt").input_ids
        with torch.no_grad():
            rows.append(whole(input_ids=ids, output_hidden_states=True).hidden_states[layer + 1][0, -1].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("preset", FAMILIES)
def test_a_family_is_loaded_end_to_end(cache, preset, capsys):
    *_, name, layer, by_hand = FAMILIES[preset]
    of, folder = study(preset, cache)
    extract.run(of)
    encode.run(of)
    if preset == "gpt2-small":
        texts = [f"<|endoftext|>{prompt}" for prompt in PROMPTS]
    else:
        chat = "<bos><start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n"
        texts = [chat.format(PROMPTS[0]), f"<bos>{PROMPTS[1]}", chat.format(PROMPTS[2])]
    found = of.activations(layer, "d")
    np.testing.assert_allclose(found, expected_streams(folder, layer, texts, plain=False), rtol=1e-4, atol=1e-4)
    dense = of.matrix(sae_features(name, layer), "d").toarray()
    assert (dense != 0).any(axis=1).all()
    np.testing.assert_allclose(dense, by_hand(found), rtol=1e-4, atol=1e-3)
    made = of.about_activations("d")
    checks = activations.read_checks(Path(f"artifacts/activations/layer_{layer}/d.0.safetensors"))
    assert max(checks.padded, checks.whole) < 1e-5
    assert (checks.padding, checks.equal) == ("right", None)
    assert checks.longest >= len(PROMPTS[1].split())
    context = features.read_source(Path(f"artifacts/features/{name}/d.safetensors"))["context_size"]
    assert context == (64 if preset == "gpt2-small" else 1024)
    assert (made["revision"], made["pinned"]) == (MODEL_COMMIT, True)
    assert (made["chat_prompts"], made["adds_bos"]) == (0 if preset == "gpt2-small" else 2, True)
    about, chosen = source(name), of.params.saes[name]
    assert {key: about[key] for key in ("release", "id", "revision", "pinned", "model", "override")} == {
        "release": chosen.release,
        "id": chosen.id,
        "revision": SAE_COMMIT,
        "pinned": True,
        "model": of.params.model.name,
        "override": [],
    }
    assert "unpinned" not in capsys.readouterr().err


def test_an_unpinned_run_says_so_and_records_what_it_took(cache, capsys):
    of, _ = study("gpt2-small", cache, pinned=False)
    extract.run(of)
    encode.run(of)
    said = capsys.readouterr().err
    assert f"openai-community/gpt2: unpinned, read at commit {MODEL_COMMIT}" in said
    assert f"saes.res_6_32k: unpinned, read at commit {SAE_COMMIT}" in said
    made, about = of.about_activations("d"), source("res_6_32k")
    assert (made["revision"], made["pinned"]) == (MODEL_COMMIT, False)
    assert (about["revision"], about["pinned"]) == (SAE_COMMIT, False)


@pytest.mark.parametrize("preset", FAMILIES)
def test_an_sae_is_taken_from_its_pinned_commit_whatever_main_is(cache, preset):
    _, _, repository, _, name, _, _ = FAMILIES[preset]
    of, _ = study(preset, cache)
    (cache / f"models--{repository.replace('/', '--')}/refs/main").write_text("f" * 40)
    sae = load_sae(name, of.params.saes[name])
    assert (sae.cfg.metadata.revision, sae.cfg.metadata.pinned) == (SAE_COMMIT, True)
    assert torch.equal(sae.W_dec, weights()["W_dec"])
    files.write_json(FILE, {repository: "e" * 40})
    with pytest.raises(UserError, match="the hub cannot be reached and its cache lacks"):
        load_sae(name, of.params.saes[name])


def test_saelens_is_left_as_it_was(cache):
    from sae_lens.loading import pretrained_sae_loaders as loaders

    before = loaders.hf_hub_download, loaders.get_safetensors_tensor_shapes
    with pytest.raises(UserError, match=r"saes\.s: cannot load"):
        load_sae("s", SaeParams(layer=6, release="gpt2-small-resid-post-v5-32k", id="blocks.6.hook_resid_post"))
    assert (loaders.hf_hub_download, loaders.get_safetensors_tensor_shapes) == before


def test_an_sae_of_two_commits_is_refused(cache):
    repository = "jbloom/GPT2-Small-OAI-v5-32k-resid-post-SAEs"
    for commit in (SAE_COMMIT, MODEL_COMMIT):
        gpt2_sae(tiny.in_cache(cache, repository, commit))
    folder = cache / "models--jbloom--GPT2-Small-OAI-v5-32k-resid-post-SAEs/snapshots"
    (folder / MODEL_COMMIT / "v5_32k_layer_6.pt/sae_weights.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be reached"):  # never half of one and half of another
        load_sae("s", SaeParams(layer=6, release="gpt2-small-resid-post-v5-32k", id="blocks.6.hook_resid_post"))
    with pytest.raises(UserError, match=f"commits {MODEL_COMMIT} and {SAE_COMMIT}; pin one"):
        saes._one_commit("s", [SAE_COMMIT, MODEL_COMMIT, SAE_COMMIT])


# Llama's SAEs come as pickles: their weights are read, nothing else of them is run


def test_llamas_saes_are_loaded(cache):
    arrays = weights()
    folder = tiny.in_cache(cache, "andyrdt/saes-llama-3.1-8b-instruct", SAE_COMMIT) / "resid_post_layer_15/trainer_1"
    folder.mkdir(parents=True)
    trainer = {"layer": 15, "dict_class": "BatchTopKSAE", "activation_dim": WIDTH, "dict_size": D_SAE, "k": 5}
    trainer["lm_name"] = "meta-llama/Llama-3.1-8B-Instruct"
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"ctx_len": 64}}))
    layers = {"encoder.weight": arrays["W_enc"].T, "encoder.bias": arrays["b_enc"], "decoder.weight": arrays["W_dec"].T}
    torch.save(layers | {"b_dec": arrays["b_dec"], "threshold": torch.tensor(1.0)}, folder / "ae.pt")
    params = Params.read(ROOT / "presets/llama-3.1-8b-instruct.yaml")
    sae = load_sae("s", params.saes["andyrdt_15"])
    assert torch.equal(sae.W_dec, arrays["W_dec"])
    assert sae.cfg.metadata.revision == SAE_COMMIT
    made = {"model": params.model.name, "weights_sha256": None, "adds_bos": True}
    assert saes.check_fits("s", SaeParams(layer=15, path="p"), sae, made)["override"] == []


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_a_pickle_that_would_run_code_is_refused(cache):
    folder = tiny.in_cache(cache, "Goodfire/Llama-3.1-8B-Instruct-SAE-l19", SAE_COMMIT)
    torch.save({"encoder_linear.weight": Bomb()}, folder / "Llama-3.1-8B-Instruct-SAE-l19.pth")
    with pytest.raises(
        UserError, match=r"saes\.s: goodfire-.* layer_19 holds more than weights, which is never loaded"
    ):
        load_sae("s", SaeParams(layer=19, release="goodfire-llama-3.1-8b-instruct", id="layer_19"))
    assert not Path("exploded").exists()


# GPT-2's residual stream with its mean taken away


def centred(model):
    """GPT-2 whose every weight that writes to the residual stream has mean 0 over it, as TransformerLens makes it."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("wte.weight", "wpe.weight", "c_proj.weight", "c_proj.bias")):
                weight -= weight.mean(-1, keepdim=True)
    return model


@pytest.fixture
def res_jb(cache):
    """gpt2-small-res-jb, layer 7: resid_pre, and trained on the centred stream."""
    repository = tiny.in_cache(cache, "jbloom/GPT2-Small-SAEs-Reformatted", SAE_COMMIT)
    for layer in (0, 7):
        hook = f"blocks.{layer}.hook_resid_pre"
        gpt2_sae(repository, hook, hook_name=hook, activation_fn_str="relu", normalize_activations="none")
    return {"release": "gpt2-small-res-jb", "id": "blocks.7.hook_resid_pre"}


def test_a_centred_sae_reads_the_stream_of_a_model_with_centred_weights(cache, res_jb):
    sae = load_sae("s", SaeParams(layer=6, **res_jb))  # resid_pre(7) is the output of layer 6
    torch.manual_seed(3)
    model = gpt2(50).eval()
    ids = torch.randint(50, (5, 9))
    with torch.no_grad():
        plain = model(ids, output_hidden_states=True).hidden_states[7][:, -1].numpy()
        stream = centred(model)(ids, output_hidden_states=True).hidden_states[7][:, -1].numpy()
    assert np.abs(plain - stream).max() > 0.01
    np.testing.assert_allclose(saes.as_trained(sae, plain), stream, atol=1e-4)
    encoded = encoding.encode(sae, "s", plain)
    np.testing.assert_allclose(encoded.features.toarray(), linear(stream), rtol=1e-3, atol=1e-3)
    variance = encoding.encode(sae, "s", stream).health.explained_variance
    assert variance == pytest.approx(encoded.health.explained_variance, rel=1e-3)


def test_other_saes_read_the_stream_as_it_is(cache):
    gpt2_sae(tiny.in_cache(cache, "jbloom/GPT2-Small-OAI-v5-32k-resid-post-SAEs", SAE_COMMIT))
    sae = load_sae("s", SaeParams(layer=6, release="gpt2-small-resid-post-v5-32k", id="blocks.6.hook_resid_post"))
    rows = np.ones((2, WIDTH), np.float32)
    assert saes.as_trained(sae, rows) is rows


def test_the_embeddings_have_no_layer(res_jb):
    with pytest.raises(UserError, match=r"blocks\.0\.hook_resid_pre, the embeddings before any layer; choose a later"):
        load_sae("s", SaeParams(layer=0, release=res_jb["release"], id="blocks.0.hook_resid_pre"))
    with pytest.raises(UserError, match="params say layer 7; set layer to 6, whose output the hook reads"):
        load_sae("s", SaeParams(layer=7, **res_jb))

"""Against transformers itself, on tiny random models of every family, saved and loaded as real checkpoints are."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from sae_transfer.artifacts import activations
from sae_transfer.core import files
from sae_transfer.core.errors import UserError
from sae_transfer.model import extraction, loading, pins, tokens
from sae_transfer.model.extraction import residual_stream
from sae_transfer.model.loading import load_model
from sae_transfer.model.model_params import ModelParams

N_LAYERS, WIDTH, CONTEXT = 4, 16, 48
WORDS = [f"w{i}" for i in range(30)]
VOCABULARY = {word: i for i, word in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", "[CLS]", "[SEP]", *WORDS])}
CHAT = "{% for m in messages %}user {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}w29{% endif %}"

# A sliding window shorter than the prompts, so that masks of padded rows matter.
SHAPE = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
}
GROUPED = SHAPE | {"num_key_value_heads": 1, "head_dim": 8}
GEMMA3 = GROUPED | {
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
GPT2 = {"vocab_size": len(VOCABULARY), "n_embd": WIDTH, "n_layer": N_LAYERS, "n_head": 2, "n_positions": CONTEXT}
FAMILIES = {
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**GROUPED, sliding_window=4, query_pre_attn_scalar=8)),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**GEMMA3)),
    "gemma3_multimodal": lambda: Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=GEMMA3, vision_config=VISION, mm_tokens_per_image=4)
    ),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**GROUPED)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**GROUPED)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2, initializer_range=0.3, bos_token_id=1, eos_token_id=1)),
    "bert": lambda: BertForMaskedLM(BertConfig(**SHAPE)),  # a checkpoint without pooler
}
LAST_LAYER = {
    "gpt2": lambda full: full.h[-1],
    "bert": lambda full: full.encoder.layer[-1],
    "gemma3_multimodal": lambda full: full.language_model.layers[-1],
}


def prompts_of(n, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(1, 25))) for _ in range(n)]


PROMPTS = prompts_of(13)


def save_tokenizer(folder, family, **options):
    core = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"unk_token": "<unk>", "eos_token": "<eos>", "pad_token": "<pad>"}
    if family == "bert":
        core.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 4), ("[SEP]", 5)]
        )
        special |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    elif family == "gpt2":  # names a BOS, does not add it, and has no padding token
        special = {"bos_token": "<eos>", "eos_token": "<eos>", "unk_token": "<eos>"}
    else:
        core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
        special |= {"bos_token": "<bos>"}
    PreTrainedTokenizerFast(tokenizer_object=core, **(special | options)).save_pretrained(folder)


def save_checkpoint(folder, family, **tokenizer_options):
    torch.manual_seed(7)
    model = FAMILIES[family]().float()
    with torch.no_grad():  # norms and biases start at 0 or 1: nothing would show if they were swapped or lost
        for name, weight in model.named_parameters():
            if "norm" in name.lower() or "ln_" in name or name.endswith("bias"):
                weight.add_(0.2 * torch.randn_like(weight))
    model.save_pretrained(folder)
    save_tokenizer(folder, family, **tokenizer_options)
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """On a busy machine, two threads take ten times as long as one for models this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {family: save_checkpoint(root / family, family) for family in FAMILIES}


@pytest.fixture
def gemma2(checkpoints):
    return checkpoints["gemma2"]


@pytest.fixture
def broken(tmp_path, gemma2):
    """A copy of a checkpoint whose weights `change` edits."""

    def make(change):
        weights = load_file(gemma2 / "model.safetensors")
        change(weights)
        for file in gemma2.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
        return tmp_path

    return make


def params_for(folder, layers=(0, 1, 2, 3), **options):
    return ModelParams(**({"name": str(folder), "layers": layers, "device": "cpu"} | options))


def streams_of(folder, prompts=PROMPTS, **options):
    params = params_for(folder, **options)
    return residual_stream(*load_model(params), prompts, params, progress=False)


def expected_streams(folder, family, prompts):
    """By transformers' own `hidden_states` of the whole model, one prompt at a time; the last layer by a hook."""
    full, info = AutoModel.from_pretrained(folder, output_loading_info=True, dtype="float32")
    assert not {key for key in info["missing_keys"] if "pooler" not in key}
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    before_norm = []
    last = LAST_LAYER.get(family, lambda full: full.layers[-1])(full.eval())
    last.register_forward_hook(lambda _m, _i, out: before_norm.append(out[0] if isinstance(out, tuple) else out))
    rows = []
    for prompt in prompts:
        with torch.no_grad():
            out = full(**tokenizer(prompt, return_tensors="pt", return_token_type_ids=False), output_hidden_states=True)
        states = [*out.hidden_states[1:N_LAYERS], before_norm.pop()]
        rows.append([state[0, -1].numpy() for state in states])
    return {layer: np.stack([row[layer] for row in rows]) for layer in range(N_LAYERS)}


def worst(streams, expected):
    """The largest relative distance over layers and rows."""
    return max(
        (np.linalg.norm(streams[layer] - expected[layer], axis=1) / np.linalg.norm(expected[layer], axis=1)).max()
        for layer in expected
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_hidden_states_of_transformers(checkpoints, family):
    streams = streams_of(checkpoints[family], tokens_per_batch=100)
    expected = expected_streams(checkpoints[family], family, PROMPTS)
    assert all(stream.shape == (len(PROMPTS), WIDTH) and stream.dtype == np.float32 for stream in streams.values())
    assert worst(streams, expected) < 1e-5
    # The negative control: another layer, another row.
    assert worst({0: streams[0]}, {0: expected[1]}) > 0.01
    assert worst({0: streams[0]}, {0: expected[0][::-1]}) > 0.01


def test_last_content_is_read_where_the_prompt_ends(checkpoints):
    """BERT's closing [SEP] is `last`; the token before it, `last_content`."""
    folder = checkpoints["bert"]
    found = streams_of(folder, layers=(1,), position="last_content", tokens_per_batch=60)[1]
    full = AutoModel.from_pretrained(folder, dtype="float32").eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    for row, prompt in enumerate(PROMPTS):
        with torch.no_grad():
            ids = tokenizer(prompt, return_tensors="pt").input_ids
            states = full(input_ids=ids, output_hidden_states=True).hidden_states[2][0]
        np.testing.assert_allclose(found[row], states[-2].numpy(), rtol=1e-4, atol=1e-5)
        assert np.abs(found[row] - states[-1].numpy()).max() > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_invariant_to_batches_and_order(checkpoints, family):
    params = params_for(checkpoints[family])
    model, tokenizer = load_model(params)
    reference = residual_stream(model, tokenizer, PROMPTS, params)
    for budget in (1, 60):
        other = params.model_copy(update={"tokens_per_batch": budget})
        assert worst(residual_stream(model, tokenizer, PROMPTS, other), reference) < 1e-5
    backwards = residual_stream(model, tokenizer, PROMPTS[::-1], params)
    assert worst({layer: stream[::-1] for layer, stream in backwards.items()}, reference) < 1e-5


def test_invariant_to_the_tokenizers_padding(gemma2):
    params = params_for(gemma2)
    model, tokenizer = load_model(params)
    reference = residual_stream(model, tokenizer, PROMPTS, params)
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    for token in ("<pad>", None):
        tokenizer.pad_token = token
        again = residual_stream(model, tokenizer, PROMPTS, params)
        assert all(np.array_equal(again[layer], reference[layer]) for layer in reference)


@pytest.mark.parametrize("family", FAMILIES)
def test_stopping_early_is_bit_equal_and_loads_nothing_above(checkpoints, family):
    whole = streams_of(checkpoints[family])
    for layer in (0, 2):
        params = params_for(checkpoints[family], layers=(layer,))
        model, tokenizer = load_model(params)
        assert len(loading.decoder_layers(model)[1]) == layer + 1
        assert model.config.num_hidden_layers == N_LAYERS  # what is computed from it stays
        assert not hasattr(model, "lm_head")
        assert not any("vision" in name for name, _ in model.named_modules())
        stream = residual_stream(model, tokenizer, PROMPTS, params)
        assert list(stream) == [layer]
        assert np.array_equal(stream[layer], whole[layer])


def test_gemma2_runs_eager_without_a_cache(gemma2):
    model, _ = load_model(params_for(gemma2))
    assert model.config._attn_implementation == "eager"
    assert not model.config.use_cache
    assert not model.training


def test_bfloat16_runs(gemma2):
    model, _ = load_model(params_for(gemma2, dtype="bfloat16"))
    assert model.dtype == torch.bfloat16
    half, full = streams_of(gemma2, dtype="bfloat16"), streams_of(gemma2)
    assert half[3].dtype == np.float32
    assert 1e-4 < worst(half, full) < 0.2


def test_bar_only_when_asked(gemma2, capsys):
    params = params_for(gemma2)
    model, tokenizer = load_model(params)
    capsys.readouterr()
    residual_stream(model, tokenizer, PROMPTS, params, progress=False)
    assert capsys.readouterr() == ("", "")
    residual_stream(model, tokenizer, PROMPTS, params, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "tokens/s" in err
    n_tokens = sum(map(len, tokens.tokenise(model, tokenizer, PROMPTS, params).ids))
    assert f"/{n_tokens} [" in err


def test_batches_keep_to_the_budget():
    lengths = [3, 9, 1, 9, 30, 2, 2]
    plan = list(extraction.batches(lengths, 18))
    assert plan == [[4], [1, 3], [0, 5, 6, 2]]
    assert sorted(row for rows in plan for row in rows) == list(range(7))


def test_each_layer_must_run_once():
    layer, last = torch.nn.Identity(), torch.tensor([1])
    states = torch.arange(6.0).reshape(1, 3, 2)
    with extraction.captured({5: layer}, last) as caught:
        layer(states)
    assert caught[5].tolist() == [[2.0, 3.0]]
    with pytest.raises(RuntimeError, match="5 ran twice"), extraction.captured({5: layer}, last):
        layer(layer(states))
    with pytest.raises(RuntimeError, match=r"\[5\] did not run"), extraction.captured({5: layer}, last):
        pass
    assert not layer._forward_hooks


# Tokens


def tokens_of(folder, prompts, **options):
    params = params_for(folder, layers=(0,), **options)
    return tokens.tokenise(*load_model(params), prompts, params)


def test_exactly_one_bos(checkpoints):
    tokens = tokens_of(checkpoints["gemma2"], ["w0 w1"])
    assert tokens.ids == [[2, 6, 7]]
    assert tokens.adds_bos
    with pytest.raises(UserError, match="row 1: 2 BOS tokens"):
        tokens_of(checkpoints["gemma2"], ["w0", "<bos> w1"])
    gpt2 = tokens_of(checkpoints["gpt2"], ["w0 w1"])
    assert gpt2.ids == [[6, 7]]
    assert not gpt2.adds_bos


@pytest.mark.parametrize(
    ("start", "count"), [("{{ bos_token }} ", 1), ("{{ bos_token }} {{ bos_token }} ", 2), ("", 0)]
)
def test_chat_template_brings_the_bos(tmp_path, start, count):
    folder = save_checkpoint(tmp_path, "llama", chat_template=start + CHAT)
    if count == 1:
        assert tokens_of(folder, ["w0"], chat_template=True).ids == [[2, 3, 6, VOCABULARY["w29"]]]
    else:
        with pytest.raises(UserError, match=f"row 0: {count} BOS tokens.*chat template"):
            tokens_of(folder, ["w0"], chat_template=True)


def test_no_chat_template(gemma2):
    with pytest.raises(UserError, match="chat_template: false"):
        tokens_of(gemma2, ["w0"], chat_template=True)


def test_unknown_words_are_counted(checkpoints):
    known = " w1" * 12
    assert tokens_of(checkpoints["gemma2"], [f"w0 what {known}", f"is {known}"]).unknown == 2


@pytest.mark.parametrize("prompt", ["", " \n"])
def test_empty_prompt(gemma2, prompt):
    with pytest.raises(UserError, match="row 1: empty prompt"):
        streams_of(gemma2, ["w0", prompt])


def test_too_long(checkpoints):
    long = " ".join(["w1"] * CONTEXT)
    with pytest.raises(UserError, match=f"row 1: {CONTEXT + 1} tokens.*context has {CONTEXT} .*truncate: true"):
        streams_of(checkpoints["gemma2"], ["w0", long])
    assert tokens_of(checkpoints["gpt2"], [long]).truncated == 0  # no BOS: it just fits
    with pytest.raises(UserError, match=f"context has {CONTEXT}"):
        tokens_of(checkpoints["gpt2"], [long + " w2"])


@pytest.mark.parametrize(("family", "head"), [("gemma2", [2]), ("gpt2", []), ("bert", [4])])
def test_truncation_keeps_bos_and_the_end(checkpoints, family, head):
    words = (WORDS * 3)[: CONTEXT + 7]
    tokens = tokens_of(checkpoints[family], ["w0", " ".join(words)], truncate=True)
    end = [VOCABULARY[word] for word in words] + ([5] if family == "bert" else [])
    assert tokens.truncated == 1
    assert tokens.ids[1] == head + end[-(CONTEXT - len(head)) :]
    assert len(streams_of(checkpoints[family], [" ".join(words)], truncate=True)[0]) == 1


def test_tokenizer_of_another_model(tmp_path, gemma2):
    for file in gemma2.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    VOCABULARY["extra"] = len(VOCABULARY)
    try:
        save_tokenizer(tmp_path, "gemma2")
    finally:
        del VOCABULARY["extra"]
    with pytest.raises(UserError, match="token 36: beyond the model's 36 embeddings"):
        streams_of(tmp_path, ["extra"])


# What a model can lack


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_beyond_the_model(checkpoints, family):
    with pytest.raises(UserError, match=rf"layer 4: model .*{family} has 4 layers, 0 to 3"):
        load_model(params_for(checkpoints[family], layers=(1, 4)))


def test_layers_are_sorted_indices(gemma2):
    assert params_for(gemma2, layers=(2, 0, 2)).layers == (0, 2)
    for layers in ((), (-1,)):
        with pytest.raises(ValueError, match="layers"):
            params_for(gemma2, layers=layers)


def test_missing_weights(broken):
    folder = broken(lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj\.weight missing from the weights"):
        load_model(params_for(folder))
    load_model(params_for(folder, layers=(0,)))  # not needed that far


def test_weights_of_another_shape(broken):
    folder = broken(lambda weights: weights.update({"model.layers.1.mlp.up_proj.weight": torch.zeros(3, 3)}))
    with pytest.raises(UserError, match=r"up_proj.weight of another shape"):
        load_model(params_for(folder))


def test_weights_unknown_to_the_architecture(broken):
    folder = broken(lambda weights: weights.update({"model.layers.1.self_attn.q_proj.bias": torch.zeros(16)}))
    with pytest.raises(UserError, match=r"q_proj.bias in the weights, unknown to Gemma2Model"):
        load_model(params_for(folder))


@pytest.mark.parametrize(
    ("key", "fits"),
    [
        ("model.embed_norm.weight", False),
        ("model.layers.9.mlp.up_proj.weight", False),
        ("lm_head.bias", True),
        ("vision_tower.layers.0.weight", True),
        ("model.vision_tower.layers.0.weight", True),
        ("score.weight", True),
    ],
)
def test_weights_besides_the_text_model_are_left_and_others_are_not(broken, key, fits):
    folder = broken(lambda weights: weights.update({key: torch.zeros(16)}))
    if fits:
        load_model(params_for(folder))
        return
    with pytest.raises(UserError, match=f"{key} in the weights, unknown to Gemma2Model"):
        load_model(params_for(folder))


def test_nan_names_row_and_layer(broken):
    def change(weights):
        weights["model.embed_tokens.weight"][VOCABULARY["w9"]] = float("nan")

    folder = broken(change)
    with pytest.raises(UserError, match="row 2: NaN or infinity in the residual stream after layer 1"):
        streams_of(folder, ["w1", "w2 w3 w4", "w8 w9", "w1 w2"], layers=(1, 2))


def test_damaged_weights(broken):
    folder = broken(lambda weights: None)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged weights"):
        load_model(params_for(folder))


def test_pickle_is_never_loaded(broken):
    folder = broken(lambda weights: None)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no safetensors weights"):
        load_model(params_for(folder))


def test_unknown_architecture(tmp_path):
    config = AutoConfig.for_model("t5", vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path, "bert")
    with pytest.raises(UserError, match="not supported: T5Model is an encoder with a decoder"):
        load_model(params_for(tmp_path, layers=(0,)))


def test_absent_device(gemma2):
    with pytest.raises(UserError, match=r"device tpu: not available here; set model.device to auto or .*cpu"):
        load_model(params_for(gemma2, device="tpu"))


def test_absent_folder():
    with pytest.raises(UserError, match=r"models/none: not found; `dvc pull models.dvc`"):
        load_model(params_for(Path("models/none")))
    with pytest.raises(UserError, match=r"model \./mine/none: no such folder"):
        load_model(params_for("./mine/none"))


@pytest.fixture
def hub(tmp_path, monkeypatch, gemma2):
    """The hub's cache with one model of one commit, and no network."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "models--org--tiny"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots").mkdir()
    (folder / "snapshots" / commit).symlink_to(gemma2)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return commit


def identity_of(params, model, tokenizer, prompts=PROMPTS):
    found = tokens.tokenise(model, tokenizer, prompts, params)
    return extraction.identity(params, model, loading.weights_identity(params), prompts, found)


@pytest.fixture
def pinned(tmp_path, monkeypatch):
    """Pins a repository in the folder that the test then runs in."""
    monkeypatch.chdir(tmp_path)
    return lambda repo, commit="unpinned": files.write_json(pins.FILE, {repo: commit})


@pytest.mark.parametrize("is_pinned", [True, False])
def test_cached_hub_model_is_known_by_its_commit(hub, gemma2, tmp_path, pinned, is_pinned):
    pinned("org/tiny", hub if is_pinned else "unpinned")
    if is_pinned:  # what the hub calls main now is not asked
        (tmp_path / "models--org--tiny/refs/main").write_text("f" * 40)
    params = params_for("org/tiny")
    model, tokenizer = load_model(params)
    about = identity_of(params, model, tokenizer)
    assert (about["revision"], about["pinned"]) == (hub, is_pinned)
    streams, local = residual_stream(model, tokenizer, PROMPTS, params), streams_of(gemma2)
    assert all(np.array_equal(streams[layer], local[layer]) for layer in local)


def test_a_pinned_commit_that_the_cache_lacks_is_not_replaced_by_another(hub, pinned):
    pinned("org/tiny", "a" * 40)
    with pytest.raises(UserError, match="the hub cannot be reached"):
        load_model(params_for("org/tiny"))


def test_hub_out_of_reach(hub):
    with pytest.raises(UserError, match=r"model org/other: the hub cannot be reached.*hf download org/other"):
        load_model(params_for("org/other"))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("GatedRepoError", "accept its licence at https://huggingface.co/org/tiny, then set HF_TOKEN"),
        ("RepositoryNotFoundError", "no such repository on the hub"),
        ("RevisionNotFoundError", "no revision v9"),
    ],
)
def test_the_hub_refuses(monkeypatch, kind, message):
    cause = type(kind, (OSError,), {})("401 Client Error\nlong story")

    def refuse(*_args, **_options):
        raise OSError("many\nlines") from cause

    monkeypatch.setattr("transformers.utils.hub.cached_file", refuse)
    with pytest.raises(UserError, match=message) as caught:
        load_model(params_for("org/tiny", revision="v9"))
    assert "\n" not in str(caught.value)


# What identifies a set of activations

IDS = [f"squad:{i}" for i in range(len(PROMPTS))]


@pytest.fixture(scope="session")
def made(checkpoints):
    params = params_for(checkpoints["gemma2"], layers=(1, 3))
    model, tokenizer = load_model(params)
    return (
        residual_stream(model, tokenizer, PROMPTS, params),
        identity_of(params, model, tokenizer),
    )


def test_identity_says_what_was_run(made, gemma2):
    identity = made[1]
    assert json.loads(json.dumps(identity)) == identity
    assert (identity["n"], identity["chat_prompts"]) == (len(PROMPTS), 0)
    assert (identity["dtype"], identity["device"], identity["position"]) == ("float32", "cpu", "last")
    assert (identity["adds_bos"], identity["unknown_tokens"], identity["truncated_prompts"]) == (True, 0, 0)
    assert (identity["revision"], identity["pinned"]) == (None, True)
    assert len(identity["weights_sha256"]) == 64


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "bfloat16"},
        {"tokens_per_batch": 9},
        {"truncate": True},
        {"position": "last_content"},
    ],
)
def test_identity_changes_with_the_run(made, gemma2, change):
    params = params_for(gemma2, layers=(1, 3), **change)
    assert identity_of(params, *load_model(params)) != made[1]


def test_identity_is_that_of_one_layer_whatever_layers_are_read_beside_it(made, gemma2):
    params = params_for(gemma2, layers=(1,))
    assert identity_of(params, *load_model(params)) == made[1]


def test_identity_changes_with_prompts_and_weights(made, gemma2, broken):
    params = params_for(gemma2, layers=(1, 3))
    model, tokenizer = load_model(params)
    assert identity_of(params, model, tokenizer) == made[1]
    assert identity_of(params, model, tokenizer, PROMPTS[::-1]) != made[1]
    other = broken(lambda weights: weights["model.norm.weight"].add_(1))
    assert loading.weights_identity(params_for(other)) != loading.weights_identity(params)


def test_written_is_read_and_bytes_repeat(made, tmp_path):
    streams, identity = made
    paths = [tmp_path / folder / "d.0.safetensors" for folder in "ab"]
    for path in paths:
        activations.write(path, streams[3], IDS, identity)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert list(paths[0].parent.iterdir()) == [paths[0]]
    assert np.array_equal(activations.read(paths[0], IDS), streams[3])
    assert activations.read_about(paths[0]) == identity


def test_bytes_repeat_in_another_process(tmp_path):
    """Safetensors writes metadata of several entries in a random order; one entry has none."""
    code = (
        "import sys, numpy as np; from pathlib import Path; from sae_transfer.artifacts import activations;"
        "activations.write(Path(sys.argv[1]), np.ones((2, 3), np.float32), ['a', 'b'], {'dtype': 'float32', 'x': 1});"
        "assert activations.read(Path(sys.argv[1]), ['a', 'b']).shape == (2, 3);"
        "print(sorted({'torch', 'transformers', 'tokenizers'} & set(sys.modules)))"
    )
    files = []
    for run in ("1", "2", "3"):
        path = tmp_path / f"{run}.safetensors"
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"  # reading and writing cost no heavy import
        files.append(path.read_bytes())
    assert files[0] == files[1] == files[2]


def test_read_refuses_other_rows(made, tmp_path):
    path = tmp_path / "d.0.safetensors"
    activations.write(path, made[0][1], IDS, made[1])
    for other in (IDS[::-1], IDS[:-1], [*IDS[:-1], "squad:x"]):
        said = rf"d\.0\.safetensors: made for other rows \(13\) than these {len(other)}; run `dvc repro`$"
        with pytest.raises(UserError, match=said):
            activations.read(path, other)


def test_missing_or_damaged_activations_are_named(made, tmp_path):
    path = tmp_path / "d.0.safetensors"
    reads = (lambda: activations.read(path, IDS), lambda: activations.read_about(path))
    for read in reads:
        with pytest.raises(UserError, match=r"d\.0\.safetensors: not found; `dvc repro`"):
            read()
    activations.write(path, made[0][1], IDS, made[1])
    whole = path.read_bytes()
    for damaged in (b"", b"junk", whole[:-7]):
        path.write_bytes(damaged)
        for read in reads:
            with pytest.raises(UserError, match=r"d\.0\.safetensors: damaged \(.*\); delete it and run `dvc repro`"):
                read()


def test_a_file_that_holds_something_else_is_damaged(tmp_path):
    path = tmp_path / "d.0.safetensors"
    files.write_arrays(path, {"other": np.ones(3)}, {})
    for read in (lambda: activations.read(path, IDS), lambda: activations.read_about(path)):
        with pytest.raises(UserError, match=r"d\.0\.safetensors: damaged"):
            read()


def test_write_refuses_ids_that_do_not_fit(made, tmp_path):
    with pytest.raises(ValueError, match="13 rows for 12 ids"):
        activations.write(tmp_path / "d.0.safetensors", made[0][1], IDS[:-1], made[1])
    assert not list(tmp_path.iterdir())

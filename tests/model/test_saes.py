"""What of an SAE does not belong to the model, the layer or the prompts is refused, and what was overridden is said."""

import json

import pytest

from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import parse
from sae_transfer.model import saes
from sae_transfer.model.model_params import SaeParams
from sae_transfer.model.saes import layer_of, load_sae

D_IN, D_SAE = 8, 16
HUB = {"model": "google/gemma-2-9b-it", "weights_sha256": None, "adds_bos": True}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    import sae_lens as sl

    folder = tmp_path_factory.mktemp("sae")
    sl.StandardSAE(sl.StandardSAEConfig(d_in=D_IN, d_sae=D_SAE)).save_model(folder)
    return folder


@pytest.fixture
def saved(original, tmp_path):
    """The SAE with these metadata; gives its folder."""

    def make(**metadata):
        config = json.loads((original / "cfg.json").read_text())
        config["metadata"] |= {"hook_name": "model.layers.2"} | metadata
        (tmp_path / "cfg.json").write_text(json.dumps(config))
        (tmp_path / "sae_weights.safetensors").write_bytes((original / "sae_weights.safetensors").read_bytes())
        return tmp_path

    return make


def fitted(folder, made, **options):
    params = SaeParams(layer=2, path=folder, **options)
    return saes.check_fits("s", params, load_sae("s", params), made)


@pytest.mark.parametrize(
    ("trained_on", "model"),
    [
        ("gemma-2-9b-it", "google/gemma-2-9b-it"),
        ("google/gemma-3-4b-it", "google/gemma-3-4b-it"),
        ("gpt2-small", "openai-community/gpt2"),
        ("gpt2", "gpt2"),
        ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B-Instruct"),
        (None, "org/model"),  # nothing is known against it
    ],
)
def test_an_sae_of_the_model_is_taken_under_any_of_its_names(saved, trained_on, model):
    about = fitted(saved(model_name=trained_on), HUB | {"model": model})
    assert (about["trained_on"], about["model"], about["override"]) == (trained_on, model, [])


@pytest.mark.parametrize("trained_on", ["gemma-2-9b", "gemma-2-2b-it", "gpt2-small", "gemma-2-9b-it-finetuned"])
def test_an_sae_of_another_model_is_refused_unless_overridden_and_then_it_is_said(saved, trained_on):
    folder = saved(model_name=trained_on)
    refusal = rf"saes\.s: it was trained on {trained_on}, but model\.name is google/gemma-2-9b-it; .*saes\.s\.override"
    with pytest.raises(UserError, match=refusal):
        fitted(folder, HUB)
    about = fitted(folder, HUB, override=True)
    assert about["override"] == [f"was trained on {trained_on}, but model.name is google/gemma-2-9b-it"]


def test_a_model_that_is_a_folder_has_no_name_to_compare(saved):
    made = {"model": "models/demo/model", "weights_sha256": "0" * 64, "adds_bos": True}
    about = fitted(saved(model_name="sae-transfer-demo"), made)
    assert (about["override"], about["revision"], about["pinned"]) == ([], None, None)


@pytest.mark.parametrize(
    ("trained_with", "has", "fits"), [(True, False, False), (True, True, True), (None, False, True)]
)
def test_an_sae_that_expects_a_bos_needs_one(saved, trained_with, has, fits):
    folder, made = saved(prepend_bos=trained_with, model_name="gemma-2-9b-it"), HUB | {"adds_bos": has}
    if fits:
        assert fitted(folder, made)["override"] == []
        return
    with pytest.raises(UserError, match=r"saes\.s: it was trained on prompts that start with BOS.*prepend_bos: true"):
        fitted(folder, made)
    assert fitted(folder, made, override=True)["override"] == [
        "was trained on prompts that start with BOS, and these do not"
    ]


def test_both_hook_names_count_and_the_first_decides(saved):
    assert fitted(saved(hook_name=None, hf_hook_name="model.layers.2.output"), HUB)["hook"] == "model.layers.2.output"
    with pytest.raises(
        UserError, match=r"its hook is model\.layers\.3\.output, but params say layer 2; set layer to 3"
    ):
        load_sae("s", SaeParams(layer=2, path=saved(hook_name=None, hf_hook_name="model.layers.3.output")))


def test_the_output_of_a_layer_by_its_name_in_transformers():
    assert layer_of("model.layers.7.output") == 7
    assert layer_of("model.layers.7.self_attn.o_proj.input") is None


@pytest.mark.parametrize(
    ("rewriting", "refused"),
    [
        ({"fold_ln": True, "device_map": "auto"}, None),
        ({"center_writing_weights": True}, None),
        ({"center_writing_weights": False, "some_option": False}, None),
        ({"some_option": True, "center_writing_weights": True}, "some_option"),
    ],
)
def test_a_model_rewritten_in_a_way_that_is_not_done_here_is_refused(saved, rewriting, refused):
    params = SaeParams(layer=2, path=saved(model_from_pretrained_kwargs=rewriting))
    if refused is None:
        load_sae("s", params)
        return
    with pytest.raises(UserError, match=f"trained on a model rewritten by {refused}, which is not done here"):
        load_sae("s", params)


@pytest.mark.parametrize(
    ("hook", "layer"),
    [
        ("blocks.3.hook_out", 3),  # TransformerLens 3
        ("blocks.3.hook_in", 2),
        ("blocks.3.hook_resid_mid", None),
        ("blocks.3.attn.hook_z", None),
        ("blocks.3.hook_mlp_out", None),
        ("model.language_model.layers.3", 3),
        ("gpt_neox.layers.3", 3),
        ("transformer.h.3", 3),
        ("encoder.layer.3.output", 3),
        ("vision_tower.vision_model.encoder.layers.3", None),
        ("model.visual.blocks.3", None),
        ("audio_tower.layers.3", None),
        ("model.layers.3.input", 2),
        ("model.layers.3.mlp", None),
    ],
)
def test_hooks_on_the_text_models_stream_are_told_from_others(hook, layer):
    assert layer_of(hook) == layer


@pytest.mark.parametrize(
    ("asked", "revision", "problem"),
    [
        ({"revision": "step143000"}, "step143000", None),
        ({"checkpoint_value": 143000}, "step143000", None),  # as TransformerLens counts Pythia's
        ({"revision": "0" * 40}, None, None),  # the commit itself
        ({"revision": "step143000"}, None, "was trained on revision step143000, but model.revision is None"),
        ({"revision": "step143000", "torch_dtype": "bfloat16"}, "step1", "but model.revision is step1"),
        ({"attn_implementation": "eager", "torch_dtype": "float32"}, None, None),
    ],
)
def test_an_sae_of_a_revision_needs_the_model_at_that_revision(saved, asked, revision, problem):
    made = {"model": "EleutherAI/pythia-70m", "weights_sha256": None, "adds_bos": True, "revision": "0" * 40}
    params = SaeParams(layer=2, path=saved(model_name="pythia-70m", model_from_pretrained_kwargs=asked))
    sae = load_sae("s", params)
    if problem is None:
        assert saes.check_fits("s", params, sae, made, revision)["override"] == []
        return
    with pytest.raises(UserError, match=f"{problem}; set it to step143000"):
        saes.check_fits("s", params, sae, made, revision)


def test_a_bos_that_the_tokenizer_does_not_have_is_asked_of_nobody(saved):
    """Loaders of Qwen's SAEs say prepend_bos: true, and Qwen has no BOS."""
    assert fitted(saved(prepend_bos=True, model_name="gemma-2-9b-it"), HUB | {"adds_bos": None})["override"] == []


# What is no SAE of single rows


def kind(tmp_path, config, arrays=None, **metadata):
    """A folder with a random SAE of this kind."""
    import torch
    from safetensors.torch import save_file

    about = {"hook_name": "blocks.2.hook_resid_post", "prepend_bos": True, "sae_lens_version": "6.54.12"} | metadata
    base = {"d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True}
    base |= {"normalize_activations": "none", "reshape_activations": "none", "metadata": about}
    (tmp_path / "cfg.json").write_text(json.dumps(base | config))
    random = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (D_IN, D_SAE), "W_dec": (D_SAE, D_IN), "b_enc": (D_SAE,), "b_dec": (D_IN,)}
    weights = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    save_file(weights | (arrays or {}), tmp_path / "sae_weights.safetensors")
    return SaeParams(layer=2, path=tmp_path)


@pytest.mark.parametrize(
    ("config", "metadata", "said"),
    [
        ({"architecture": "abstopk", "k": 3}, {}, "not supported: architecture abstopk; choose one of gated, jumprelu"),
        (
            {"architecture": "transcoder", "d_out": D_IN, "apply_b_dec_to_input": False},
            {},
            "not supported: a transcoder",
        ),
        ({"architecture": "standard"}, {"hook_name_out": "blocks.2.hook_mlp_out"}, "not supported: a transcoder"),
        ({"architecture": "standard"}, {"hf_hook_name_out": "model.layers.2.mlp"}, "not supported: a transcoder"),
        ({"architecture": "standard"}, {"hook_head_index": 1}, "not supported: its hook is blocks.2.hook_resid_post"),
        ({"architecture": "standard"}, {"hook_name_out": "blocks.2.hook_resid_post"}, None),
    ],
)
def test_what_is_no_sae_of_rows_is_refused_when_it_is_loaded(tmp_path, config, metadata, said):
    params = kind(tmp_path, config, **metadata)
    if said is None:
        load_sae("s", params)
        return
    with pytest.raises(UserError, match=f"saes.s: {said}"):
        load_sae("s", params)


def test_a_temporal_sae_is_refused_when_it_is_loaded(tmp_path):
    import sae_lens as sl

    config = sl.TemporalSAEConfig(d_in=D_IN, d_sae=D_SAE, n_heads=1, bottleneck_factor=1, kval_topk=2)
    config.metadata.hook_name = "blocks.2.hook_resid_post"
    sl.TemporalSAE(config).save_model(tmp_path)
    with pytest.raises(UserError, match=r"saes\.s: not supported: architecture temporal"):
        load_sae("s", SaeParams(layer=2, path=tmp_path))


def test_an_sae_is_tried_on_rows_whatever_it_is_called(tmp_path, monkeypatch):
    import sae_lens as sl

    params = kind(tmp_path, {"architecture": "standard"})
    encode = sl.StandardSAE.encode
    for broken, said in (
        (lambda sae, x: encode(sae, x) * len(x), "a row's features depend on the rows beside it"),
        (lambda sae, x: -encode(sae, x), "its features can be negative"),
        (lambda sae, x: encode(sae, x)[0], "does not encode rows|another width"),
    ):
        monkeypatch.setattr(sl.StandardSAE, "encode", broken)
        with pytest.raises(UserError, match=f"not supported: .*({said})"):
            load_sae("s", params)


def test_a_tensor_that_the_architecture_lacks_is_named(tmp_path):
    import torch

    with pytest.raises(UserError, match=r'Unexpected key\(s\) in state_dict: "scale"') as caught:
        load_sae("s", kind(tmp_path, {"architecture": "standard"}, {"scale": torch.ones(D_SAE)}))
    assert "\n" not in str(caught.value)


def test_an_sae_runs_where_there_is_a_device(saved):
    assert SaeParams(layer=2, path=saved()).device == "auto"
    assert load_sae("s", SaeParams(layer=2, path=saved())).W_dec.device.type in ("cpu", "cuda", "mps")


def test_an_absent_device_is_one_line(saved, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match=r"device cuda: not available here; set saes\.s\.device to auto or .*cpu"):
        load_sae("s", SaeParams(layer=2, path=saved(), device="cuda"))


def test_a_layer_below_the_first_is_refused():
    with pytest.raises(UserError, match=r"saes\.s\.layer = -1: "):
        parse(SaeParams, {"layer": -1, "path": "p"}, "saes.s")


def test_the_registry_is_saelens_own():
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory, get_repo_id_and_folder_name

    directory = get_pretrained_saes_directory()
    assert set(saes.registry()) == set(directory)
    for release in ("gpt2-small-res-jb", "gemma-scope-9b-it-res-canonical", "org/my-saes"):
        ids = list(directory[release].saes_map) if release in directory else ["x"]
        assert saes.repository(release) == get_repo_id_and_folder_name(release, ids[0])[0]

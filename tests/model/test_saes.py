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

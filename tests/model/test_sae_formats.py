"""SAEs in the folders of other tools, against the equations of those tools."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sae_transfer.core.errors import UserError
from sae_transfer.model import encoding
from sae_transfer.model.model_params import SaeParams
from sae_transfer.model.saes import load_sae

D_IN, D_SAE, K, LAYER = 8, 24, 4, 3
RANDOM = torch.Generator().manual_seed(0)
X = 2 * torch.randn(6, D_IN, generator=RANDOM)
ENCODER, DECODER = (torch.randn(D_SAE, D_IN, generator=RANDOM) for _ in range(2))  # as torch.nn.Linear keeps them
B_ENC, B_DEC = torch.randn(D_SAE, generator=RANDOM) / 3, torch.randn(D_IN, generator=RANDOM)


def loaded(folder):
    return load_sae("s", SaeParams(layer=LAYER, path=folder))


def check(folder, expected):
    """Features and reconstruction equal the equations'."""
    sae = loaded(folder)
    found = encoding.encode(sae, "s", X.numpy()).features
    np.testing.assert_allclose(found.toarray(), expected.numpy(), atol=1e-5)
    rebuilt = encoding.decoder(sae, np.arange(D_SAE)).reconstruct(found)
    np.testing.assert_allclose(rebuilt, (expected @ DECODER + B_DEC).numpy(), atol=1e-4)


def top_k(before):
    values, at = before.relu().topk(K)
    return torch.zeros_like(before).scatter(1, at, values)


def over(before, threshold):
    return before.relu() * (before > threshold)


def sparsify(tmp_path, **config):
    folder = tmp_path / f"layers.{LAYER}"
    folder.mkdir()
    said = {"d_in": D_IN, "num_latents": D_SAE, "k": K, "expansion_factor": 3, "normalize_decoder": True}
    (folder / "cfg.json").write_text(json.dumps(said | config))
    arrays = {"encoder.weight": ENCODER, "encoder.bias": B_ENC, "W_dec": DECODER, "b_dec": B_DEC}
    save_file(arrays, folder / "sae.safetensors")
    return folder


def dictionary(tmp_path, kind, weights=None, **trainer):
    """Of dictionary_learning."""
    said = {"dict_class": kind, "activation_dim": D_IN, "dict_size": D_SAE, "k": K, "layer": LAYER, "lm_name": "org/m"}
    (tmp_path / "config.json").write_text(json.dumps({"trainer": said | trainer, "buffer": {"ctx_len": 64}}))
    linear = {
        "encoder.weight": ENCODER,
        "encoder.bias": B_ENC,
        "decoder.weight": DECODER.T.contiguous(),
        "b_dec": B_DEC,
    }
    torch.save(linear if weights is None else weights, tmp_path / "ae.pt")
    return tmp_path


@pytest.mark.parametrize("normalised", [True, False])
def test_sparsify_takes_its_bias_from_the_input_whatever_its_decoder(tmp_path, normalised):
    check(sparsify(tmp_path, normalize_decoder=normalised), top_k((X - B_DEC) @ ENCODER.T + B_ENC))


@pytest.mark.parametrize(
    "option", [{"transcode": True}, {"skip_connection": True}, {"signed": True}, {"activation": "groupmax"}]
)
def test_what_sparsify_can_train_beside_saes_is_refused(tmp_path, option):
    with pytest.raises(UserError, match="not supported: an SAE of sparsify with"):
        loaded(sparsify(tmp_path, **option))


def test_dictionary_learnings_saes(tmp_path):
    before = (X - B_DEC) @ ENCODER.T + B_ENC
    linear = {"encoder.weight": ENCODER, "encoder.bias": B_ENC, "decoder.weight": DECODER.T.contiguous()}
    jump = {"W_enc": ENCODER.T.contiguous(), "b_enc": B_ENC, "W_dec": DECODER, "b_dec": B_DEC}
    check(dictionary(tmp_path, "AutoEncoderTopK"), top_k(before))
    check(dictionary(tmp_path, "AutoEncoder", linear | {"bias": B_DEC}), before.relu())
    with_threshold = linear | {"b_dec": B_DEC, "threshold": torch.tensor(1.5)}
    check(dictionary(tmp_path, "BatchTopKSAE", with_threshold, submodule_name="resid_post_layer_3"), over(before, 1.5))
    check(
        dictionary(tmp_path, "JumpReluAutoEncoder", jump | {"threshold": torch.full((D_SAE,), 1.0)}),
        over(X @ ENCODER.T + B_ENC, 1.0),
    )


def test_dictionary_learnings_other_places_and_kinds_are_refused(tmp_path):
    with pytest.raises(UserError, match="not supported: its hook is attn_out_layer_3, which is not on the residual"):
        loaded(dictionary(tmp_path, "AutoEncoder", submodule_name="attn_out_layer_3"))
    for kind in ("AutoEncoderNew", "CrossCoder"):
        with pytest.raises(UserError, match=f"not supported: a {kind} of dictionary_learning"):
            loaded(dictionary(tmp_path, kind))


def gemma_scope(tmp_path, *parts):
    folder = tmp_path.joinpath(*parts)
    folder.mkdir(parents=True)
    arrays = {
        "W_enc": ENCODER.T,
        "W_dec": DECODER,
        "b_enc": B_ENC,
        "b_dec": B_DEC,
        "threshold": torch.full((D_SAE,), 1.0),
    }
    np.savez(folder / "params.npz", **{name: value.numpy() for name, value in arrays.items()})
    return folder


def test_gemma_scopes_arrays(tmp_path):
    check(gemma_scope(tmp_path, "layer_3/width_16k/average_l0_88"), over(X @ ENCODER.T + B_ENC, 1.0))
    check(gemma_scope(tmp_path, "mine"), over(X @ ENCODER.T + B_ENC, 1.0))
    with pytest.raises(UserError, match="set layer to 9"):
        loaded(gemma_scope(tmp_path, "layer_9/width_16k/average_l0_88"))
    with pytest.raises(UserError, match="not supported: mlp of Gemma Scope"):
        loaded(gemma_scope(tmp_path, "gemma-scope-2b-pt-mlp/layer_3/width_16k/average_l0_88"))


def test_a_folder_of_no_known_tool_names_those_that_are_read(tmp_path):
    (tmp_path / "weights.pkl").touch()
    with pytest.raises(
        UserError, match=r"no sae_weights\.safetensors \(SAELens\), sae\.safetensors, ae\.pt, params\.npz"
    ):
        loaded(tmp_path)

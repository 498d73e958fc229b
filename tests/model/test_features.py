"""Against SAELens itself, on tiny SAEs of several kinds, saved and loaded as real ones are."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

from sae_transfer.artifacts import features
from sae_transfer.artifacts.features import Health
from sae_transfer.core import files
from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import parse
from sae_transfer.model import encoding
from sae_transfer.model.model_params import SaeParams
from sae_transfer.model.saes import layer_of, load_sae

D_IN, D_SAE, LAYER = 16, 64, 2
KINDS = ["standard", "topk", "jumprelu", "batchtopk", "layer_norm", "constant_norm_rescale", "gated", "rescaled_topk"]


def make(kind):
    import sae_lens as sl

    torch.manual_seed(KINDS.index(kind))
    size = {"d_in": D_IN, "d_sae": D_SAE}
    sae = {
        "standard": lambda: sl.StandardSAE(sl.StandardSAEConfig(**size)),
        "layer_norm": lambda: sl.StandardSAE(sl.StandardSAEConfig(**size, normalize_activations="layer_norm")),
        "constant_norm_rescale": lambda: sl.StandardSAE(
            sl.StandardSAEConfig(**size, normalize_activations="constant_norm_rescale")
        ),
        "gated": lambda: sl.GatedSAE(sl.GatedSAEConfig(**size)),
        "rescaled_topk": lambda: sl.TopKSAE(sl.TopKSAEConfig(**size, k=20, rescale_acts_by_decoder_norm=True)),
        "topk": lambda: sl.TopKSAE(sl.TopKSAEConfig(**size, k=5)),
        "jumprelu": lambda: sl.JumpReLUSAE(sl.JumpReLUSAEConfig(**size)),
        "batchtopk": lambda: sl.BatchTopKTrainingSAE(sl.BatchTopKTrainingSAEConfig(**size, k=5)),
    }[kind]()
    with torch.no_grad():
        sae.b_dec.normal_()
        if kind == "standard":
            sae.b_enc[-8:] = -100.0  # eight dead features
        if kind == "jumprelu":
            sae.threshold.fill_(0.5)
        if kind == "gated":
            sae.r_mag.normal_()
        if kind == "rescaled_topk":
            sae.W_dec.mul_(torch.rand(D_SAE, 1) + 0.5)
        if kind == "batchtopk":
            sae.topk_threshold.fill_(0.4)
    return sae


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saes")
    for kind in KINDS:
        sae = make(kind)
        sae.cfg.metadata.hook_name = f"model.layers.{LAYER}"
        (sae.save_inference_model if kind == "batchtopk" else sae.save_model)(folder / kind)
    return folder


@pytest.fixture(params=KINDS)
def sae(request, folders):
    return load_sae(request.param, SaeParams(layer=LAYER, path=folders / request.param))


@pytest.fixture
def standard(folders):
    return load_sae("standard", SaeParams(layer=LAYER, path=folders / "standard"))


def rows(n=37, seed=0):
    return (np.random.default_rng(seed).standard_normal((n, D_IN)) * 2 + 1).astype(np.float32)


@pytest.fixture(params=["none", "topk", "gated"])
def raw_sae(request):
    """SAEs that do not normalise the stream, two of which scale encoder or decoder beyond the matrices."""
    import sae_lens as sl

    torch.manual_seed(0)
    size = {"d_in": D_IN, "d_sae": D_SAE}
    sae = {
        "none": lambda: sl.StandardSAE(sl.StandardSAEConfig(**size)),
        "topk": lambda: sl.TopKSAE(sl.TopKSAEConfig(**size, k=20, rescale_acts_by_decoder_norm=True)),
        "gated": lambda: sl.GatedSAE(sl.GatedSAEConfig(**size)),
    }[request.param]()
    with torch.no_grad():
        sae.W_dec.mul_(torch.rand(D_SAE, 1) + 0.5)
        sae.b_dec.normal_()
        if request.param == "gated":
            sae.r_mag.normal_()
    return sae


def one_by_one(sae, activations):
    with torch.inference_mode():
        encoded = [sae.encode(torch.from_numpy(row[None].copy())) for row in activations]
    return torch.cat(encoded).numpy()


def test_features_are_saelens_own_row_by_row(sae):
    encoded, _, _ = encoding.encode(sae, "s", rows())
    expected = one_by_one(sae, rows())
    assert encoded.shape == (37, D_SAE)
    assert encoded.dtype == np.float32
    assert np.array_equal(encoded.indptr[1:], np.cumsum(np.count_nonzero(expected, axis=1)))
    np.testing.assert_allclose(encoded.toarray(), expected, rtol=1e-5, atol=1e-6)
    encoded.check_format()
    assert encoded.has_canonical_format


def test_health_is_what_numpy_says(sae):
    X = rows()
    _, health, _ = encoding.encode(sae, "s", X)
    rebuilt, dense = decoded(sae, X), one_by_one(sae, X)
    explained = 1 - ((X - rebuilt) ** 2).sum() / ((X - X.mean(axis=0)) ** 2).sum()
    assert health.width == D_SAE
    assert health.l0 == pytest.approx((dense != 0).sum(axis=1).mean())
    assert health.explained_variance == pytest.approx(explained, rel=1e-4)
    assert health.dead == pytest.approx((dense == 0).all(axis=0).mean())


def decoded(sae, X):
    """SAELens' own reconstruction, row by row, since some SAEs remember the norms of what they encoded last."""
    with torch.inference_mode():
        return np.concatenate([sae.decode(sae.encode(torch.from_numpy(x[None].copy()))).numpy() for x in X])


def assert_rebuilt(found, expected):
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def stored(sae, X, folder):
    """(features, norms, decoder of the features that fire), written and read again."""
    encoded = encoding.encode(sae, "s", X)
    fired = np.flatnonzero(np.bincount(encoded.features.indices, minlength=D_SAE))
    features.write(folder / "d.safetensors", encoded.features, encoded.health, {}, encoded.norms)
    directions = encoding.directions(sae, fired[:3])
    features.write_directions(folder / "s.safetensors", directions, encoding.decoder(sae, fired))
    again, decoder = features.read_directions(folder / "s.safetensors")
    np.testing.assert_array_equal(again.decoder, directions.decoder)
    return *features.read(folder / "d.safetensors"), decoder


def test_features_and_decoder_give_saelens_own_reconstruction(sae, tmp_path):
    X = rows()
    X = X * np.geomspace(0.1, 10, len(X), dtype=np.float32)[:, None]  # rows of many norms
    found, norms, decoder = stored(sae, X, tmp_path)
    assert (norms is None) == (sae.cfg.normalize_activations == "none")
    expected = decoded(sae, X)
    assert_rebuilt(decoder.reconstruct(found, norms), expected)
    some = np.array([30, 2, 2])
    assert_rebuilt(decoder.reconstruct(found[some], None if norms is None else norms.take(some)), expected[some])


@pytest.mark.parametrize("kind", ["layer_norm", "constant_norm_rescale"])
def test_without_its_rows_norms_a_reconstruction_is_another(folders, tmp_path, kind):
    sae = load_sae(kind, SaeParams(layer=LAYER, path=folders / kind))
    found, norms, decoder = stored(sae, rows(), tmp_path)
    with pytest.raises(AssertionError):
        assert_rebuilt(decoder.reconstruct(found, None), decoded(sae, rows()))
    assert norms.scale.shape == norms.shift.shape == (37,)


def test_where_nothing_fires_the_bias_is_the_reconstruction(standard):
    silent = sparse.csr_array((3, D_SAE), dtype=np.float32)
    rebuilt = encoding.decoder(standard, np.zeros(0, dtype=np.int64)).reconstruct(silent)
    np.testing.assert_array_equal(rebuilt, np.tile(standard.b_dec.numpy(force=True), (3, 1)))


def test_dead_features_are_counted(standard):
    assert encoding.encode(standard, "s", rows(500))[1].dead >= 8 / D_SAE


@pytest.mark.parametrize("per_batch", [1, 5, 37, 100])
@pytest.mark.parametrize("kind", ["standard", "layer_norm"])
def test_batches_are_bounded_and_change_nothing(folders, monkeypatch, kind, per_batch):
    sae = load_sae(kind, SaeParams(layer=LAYER, path=folders / kind))
    whole, health, norms = encoding.encode(sae, "s", rows())
    monkeypatch.setattr(encoding, "BATCH_BYTES", per_batch * 4 * D_SAE + 3)
    sizes, encode, widest = [], type(sae).encode, []
    monkeypatch.setattr(type(sae), "encode", lambda self, x: widest.append(len(x)) or encode(self, x))
    batched, batched_health, batched_norms = encoding.encode(sae, "s", rows(), sizes.append)
    assert sizes == widest
    assert max(sizes) == min(per_batch, 37)
    assert sum(sizes) == 37
    assert np.array_equal(batched.indices, whole.indices)
    np.testing.assert_allclose(batched.data, whole.data, rtol=1e-5, atol=1e-6)
    assert asdict(batched_health) == pytest.approx(asdict(health))
    assert (norms is None) == (kind == "standard")
    if norms is not None:
        np.testing.assert_array_equal(batched_norms.scale, norms.scale)
        np.testing.assert_array_equal(batched_norms.shift, norms.shift)


def test_a_buffer_smaller_than_a_row_still_encodes(standard, monkeypatch):
    monkeypatch.setattr(encoding, "BATCH_BYTES", 1)
    assert encoding.encode(standard, "s", rows(3))[0].shape == (3, D_SAE)


def test_constant_activations_have_no_explained_variance(standard, tmp_path):
    path = tmp_path / "d.safetensors"
    encoded, health, _ = encoding.encode(standard, "s", np.repeat(rows(1), 7, axis=0))
    assert np.isnan(health.explained_variance)
    features.write(path, encoded, health, {})
    assert json.loads(files.read_about(path)["health"])["explained_variance"] is None
    assert np.isnan(features.read_health(path).explained_variance)


def test_written_is_read_and_bytes_repeat(sae, tmp_path):
    encoded, health, norms = encoding.encode(sae, "s", rows())
    paths = [tmp_path / folder / "d.safetensors" for folder in "ab"]
    for path in paths:
        features.write(path, encoded, health, {"path": "p", "layer": 2}, norms)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    found, again = features.read(paths[0])
    assert found.shape == encoded.shape
    assert found.dtype == np.float32
    assert (found != encoded).nnz == 0
    assert (again is None) == (norms is None)
    if norms is not None:
        np.testing.assert_array_equal(again.scale, norms.scale)
        np.testing.assert_array_equal(again.shift, norms.shift)
    assert features.read_health(paths[0]) == health
    assert json.loads(files.read_about(paths[0])["source"]) == {"path": "p", "layer": 2}
    assert list(paths[0].parent.iterdir()) == [paths[0]]


def test_a_nonzero_costs_at_most_ten_bytes_on_disk(tmp_path):
    path = tmp_path / "d.safetensors"
    wide = sparse.random_array((2000, 131_072), density=100 / 131_072, rng=0, dtype=np.float32, format="csr")
    features.write(path, wide, Health(131_072, 100.0, 0.9, 0.0), {})
    assert path.stat().st_size <= 10 * wide.nnz
    assert (features.read(path)[0] != wide).nnz == 0


@pytest.mark.parametrize("damage", ["empty", "junk", "cut", "other arrays", "no rows"])
def test_a_damaged_file_is_named_with_its_remedy(tmp_path, damage):
    path = tmp_path / "d.safetensors"
    features.write(path, sparse.csr_array(np.eye(50, dtype=np.float32)), Health(50, 1.0, 1.0, 0.0), {})
    data, (arrays, _) = path.read_bytes(), files.read_arrays(path)
    if damage == "other arrays":
        files.write_arrays(path, {"data": np.ones(3)}, {})
    elif damage == "no rows":
        files.write_arrays(path, arrays | {"indptr": arrays["indptr"][:3]}, {})
    else:
        path.write_bytes({"empty": b"", "junk": b"PK\x03\x04junk", "cut": data[:-30]}[damage])
    for read in (features.read, features.read_health):
        with pytest.raises(UserError, match=r"d\.safetensors: damaged \(.*\); delete it and run `dvc repro`"):
            read(path)


def test_missing_features_name_dvc_repro(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for read in (features.read, features.read_health, features.read_directions):
        with pytest.raises(UserError, match=r"^artifacts/features/s/d\.safetensors: not found; `dvc repro` makes it$"):
            read(Path("artifacts/features/s/d.safetensors"))


def test_activations_of_another_width_are_refused(standard):
    with pytest.raises(UserError, match=r"saes\.s: d_in is 16, but the model's activations have 12 numbers"):
        encoding.encode(standard, "s", rows()[:, :12])


@pytest.mark.parametrize(
    ("hook", "layer"),
    [
        ("blocks.20.hook_resid_post", 20),
        ("model.layers.20", 20),
        ("transformer.h.3", 3),
        ("model.language_model.layers.7", 7),
        ("blocks.8.hook_resid_pre", 7),
        ("blocks.0.hook_resid_pre", -1),  # the embeddings
        ("blocks.3.hook_mlp_out", None),
        ("blocks.3.attn.hook_z", None),
        ("blocks.3.hook_resid_mid", None),
        ("model.layers.3.mlp", None),
        ("hook_embed", None),
        ("blocks.1.hook_resid_prepost", None),
    ],
)
def test_the_layer_of_a_hook(hook, layer):
    assert layer_of(hook) == layer


def rewritten(folders, tmp_path, **changes):
    """A copy of the standard SAE with another configuration."""
    config = json.loads((folders / "standard" / "cfg.json").read_text())
    config["metadata"] |= changes.pop("metadata", {})
    (tmp_path / "cfg.json").write_text(json.dumps(config | changes))
    (tmp_path / "sae_weights.safetensors").write_bytes((folders / "standard" / "sae_weights.safetensors").read_bytes())
    return tmp_path


@pytest.mark.parametrize("hook", ["blocks.2.hook_resid_post", "model.layers.2", "blocks.3.hook_resid_pre", None])
def test_a_hook_after_the_layer_is_accepted_in_either_form(folders, tmp_path, hook):
    path = rewritten(folders, tmp_path, metadata={"hook_name": hook})
    assert load_sae("s", SaeParams(layer=2, path=path)).cfg.d_sae == D_SAE


@pytest.mark.parametrize("hook", ["blocks.3.hook_resid_post", "model.layers.1", "blocks.2.hook_resid_pre"])
def test_a_hook_of_another_layer_is_refused(folders, tmp_path, hook):
    path = rewritten(folders, tmp_path, metadata={"hook_name": hook})
    with pytest.raises(UserError, match=f"saes.s: its hook is {hook}, but params say layer 2; set layer"):
        load_sae("s", SaeParams(layer=2, path=path))


def test_a_hook_off_the_residual_stream_is_refused(folders, tmp_path):
    path = rewritten(folders, tmp_path, metadata={"hook_name": "blocks.2.hook_mlp_out"})
    with pytest.raises(UserError, match=r"blocks\.2\.hook_mlp_out, which is not on the residual stream"):
        load_sae("s", SaeParams(layer=2, path=path))


def test_a_normalisation_that_loading_does_not_fold_is_refused(folders, tmp_path):
    path = rewritten(folders, tmp_path, normalize_activations="expected_average_only_in")
    with pytest.raises(UserError, match=r"normalize_activations = expected_average_only_in .*fold it with SAELens"):
        load_sae("s", SaeParams(layer=2, path=path))


def test_an_sae_is_loaded_in_float32(folders, tmp_path):
    path = rewritten(folders, tmp_path, dtype="bfloat16")
    assert load_sae("s", SaeParams(layer=2, path=path)).W_dec.dtype == torch.float32


def test_a_missing_folder_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^saes\.s: models/demo/s: not found; `dvc pull models\.dvc` brings it$"):
        load_sae("s", SaeParams(layer=2, path=Path("models/demo/s")))
    with pytest.raises(UserError, match=r"^saes\.s: mine/s: no such folder; correct its path in params\.yaml$"):
        load_sae("s", SaeParams(layer=2, path=Path("mine/s")))


@pytest.mark.parametrize("damage", ["no weights", "junk weights", "other weights", "no config", "empty config"])
def test_a_damaged_sae_is_named_in_one_line(folders, tmp_path, damage):
    from safetensors.torch import save_file

    path = rewritten(folders, tmp_path)
    weights = path / "sae_weights.safetensors"
    {
        "no weights": weights.unlink,
        "junk weights": lambda: weights.write_bytes(b"x" * 99),
        "other weights": lambda: save_file({"W_enc": torch.zeros(3, 3)}, weights),
        "no config": (path / "cfg.json").unlink,
        "empty config": lambda: (path / "cfg.json").write_text("{}"),
    }[damage]()
    with pytest.raises(UserError) as caught:
        load_sae("s", SaeParams(layer=2, path=path))
    assert str(caught.value).startswith(f"saes.s: cannot load {path}: ")
    assert "\n" not in str(caught.value)


def test_an_unknown_release_or_id_is_named():
    with pytest.raises(UserError, match=r"saes\.s: cannot load nosuch x: Release nosuch not found"):
        load_sae("s", SaeParams(layer=2, release="nosuch", id="x"))
    with pytest.raises(UserError, match=r"saes\.s: cannot load gpt2-small-res-jb x: ID x not found .*Valid IDs"):
        load_sae("s", SaeParams(layer=2, release="gpt2-small-res-jb", id="x"))


@pytest.mark.parametrize(
    "source", [{}, {"path": "p", "release": "r", "id": "i"}, {"release": "r"}, {"id": "i"}, {"path": "p", "id": "i"}]
)
def test_an_sae_has_one_source(source):
    with pytest.raises(UserError, match=r"^saes\.s: give either a path, or a release and an id$"):
        parse(SaeParams, {"layer": 2} | source, "saes.s")


def test_decoder_directions_are_what_a_unit_of_activation_adds(raw_sae):
    ids = np.array([3, 10, 60])
    with torch.inference_mode():
        nothing = raw_sae.decode(torch.zeros(1, D_SAE))
        added = raw_sae.decode(torch.eye(D_SAE)[ids]) - nothing
    np.testing.assert_allclose(encoding.directions(raw_sae, ids).decoder, added.numpy(), rtol=1e-5, atol=1e-6)


def test_encoder_directions_are_the_gradients_of_active_features(raw_sae):
    found = encoding.directions(raw_sae, np.arange(D_SAE))
    x = torch.from_numpy(rows(1)).requires_grad_()
    activations = raw_sae.encode(x)[0]
    active = np.flatnonzero(activations.detach().numpy())
    assert len(active) > 5
    for i in active:
        gradient = torch.autograd.grad(activations[i], x, retain_graph=True)[0][0]
        np.testing.assert_allclose(found.encoder[i], gradient.numpy(), rtol=1e-4, atol=1e-5)


def test_layer_norm_is_folded_into_the_encoder_directions(folders):
    sae = load_sae("layer_norm", SaeParams(layer=LAYER, path=folders / "layer_norm"))
    found = encoding.directions(sae, np.arange(D_SAE))
    X = rows(4)
    with torch.inference_mode():
        before = (sae.process_sae_in(torch.from_numpy(X)) + sae.b_dec) @ sae.W_enc
    deviation = X.std(axis=1, ddof=1, keepdims=True)
    np.testing.assert_allclose(X @ found.encoder.T, before.numpy() * deviation, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.encoder.sum(axis=1), 0, atol=1e-5)


def test_directions_survive_the_disk_with_their_objective(folders, tmp_path):
    sae, path = load_sae("batchtopk", SaeParams(layer=LAYER, path=folders / "batchtopk")), tmp_path / "s.safetensors"
    found, decoder = encoding.directions(sae, np.array([1, 5])), encoding.decoder(sae, np.array([0, 1, 4, 5, 63]))
    features.write_directions(path, found, decoder)
    again, same = features.read_directions(path)
    assert again.objective == "batchtopk"  # although such an SAE is saved as a JumpReLU
    assert again.encoder.shape == again.decoder.shape == (2, D_IN)
    np.testing.assert_array_equal(again.feature_ids, [1, 5])
    np.testing.assert_array_equal(again.encoder, found.encoder)
    np.testing.assert_array_equal(again.decoder, found.decoder)
    for part in ("feature_ids", "vectors", "bias"):
        np.testing.assert_array_equal(getattr(same, part), getattr(decoder, part))
    path.write_bytes(b"no")
    with pytest.raises(UserError, match="damaged"):
        features.read_directions(path)
    files.write_arrays(path, {"feature_ids": np.arange(2)}, {})
    with pytest.raises(UserError, match="damaged"):
        features.read_directions(path)


def test_an_sae_without_a_feature_that_fires_has_no_directions(standard):
    nothing = np.zeros(0, dtype=np.int64)
    assert encoding.directions(standard, nothing).decoder.shape == (0, D_IN)
    assert encoding.decoder(standard, nothing).vectors.shape == (0, D_IN)

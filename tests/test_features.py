"""Against SAELens itself, on tiny SAEs of several kinds, saved and loaded as real ones are."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

from sae_transfer import features
from sae_transfer.config import parse
from sae_transfer.features import Health, SaeParams, layer_of, load_sae
from sae_transfer.records import UserError

D_IN, D_SAE, LAYER = 16, 64, 2
KINDS = ["standard", "topk", "jumprelu", "batchtopk", "layer_norm"]


def make(kind):
    import sae_lens as sl

    torch.manual_seed(KINDS.index(kind))
    size = {"d_in": D_IN, "d_sae": D_SAE}
    sae = {
        "standard": lambda: sl.StandardSAE(sl.StandardSAEConfig(**size)),
        "layer_norm": lambda: sl.StandardSAE(sl.StandardSAEConfig(**size, normalize_activations="layer_norm")),
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
    encoded, _, _ = features.encode(sae, "s", rows())
    expected = one_by_one(sae, rows())
    assert encoded.shape == (37, D_SAE)
    assert encoded.dtype == np.float32
    assert np.array_equal(encoded.indptr[1:], np.cumsum(np.count_nonzero(expected, axis=1)))
    np.testing.assert_allclose(encoded.toarray(), expected, rtol=1e-5, atol=1e-6)
    encoded.check_format()
    assert encoded.has_canonical_format


def test_health_is_what_numpy_says(sae):
    X = rows()
    _, health, _ = features.encode(sae, "s", X)
    with torch.inference_mode():
        rebuilt = np.concatenate([sae.decode(sae.encode(torch.from_numpy(x[None].copy()))).numpy() for x in X])
    dense = one_by_one(sae, X)
    explained = 1 - ((X - rebuilt) ** 2).sum() / ((X - X.mean(axis=0)) ** 2).sum()
    assert health.width == D_SAE
    assert health.l0 == pytest.approx((dense != 0).sum(axis=1).mean())
    assert health.explained_variance == pytest.approx(explained, rel=1e-4)
    assert health.dead == pytest.approx((dense == 0).all(axis=0).mean())


def test_the_reconstruction_is_saelens_own_decoding_and_is_read_as_it_was_written(sae, tmp_path):
    X = rows()
    rebuilt = features.encode(sae, "s", X).reconstruction
    with torch.inference_mode():
        expected = np.concatenate([sae.decode(sae.encode(torch.from_numpy(x[None].copy()))).numpy() for x in X])
    np.testing.assert_allclose(rebuilt, expected, rtol=1e-4, atol=1e-5)
    features.write_reconstruction(tmp_path, "s", rebuilt)
    found = features.read_reconstruction(tmp_path, "s")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, rebuilt)


def test_dead_features_are_counted(standard):
    assert features.encode(standard, "s", rows(500))[1].dead >= 8 / D_SAE


@pytest.mark.parametrize("per_batch", [1, 5, 37, 100])
def test_batches_are_bounded_and_change_nothing(standard, monkeypatch, per_batch):
    whole, health, rebuilt = features.encode(standard, "s", rows())
    monkeypatch.setattr(features, "BATCH_BYTES", per_batch * 4 * D_SAE + 3)
    sizes, encode, widest = [], type(standard).encode, []
    monkeypatch.setattr(type(standard), "encode", lambda self, x: widest.append(len(x)) or encode(self, x))
    batched, batched_health, batched_rebuilt = features.encode(standard, "s", rows(), sizes.append)
    assert sizes == widest
    assert max(sizes) == min(per_batch, 37)
    assert sum(sizes) == 37
    assert np.array_equal(batched.indices, whole.indices)
    np.testing.assert_allclose(batched.data, whole.data, rtol=1e-5, atol=1e-6)
    assert asdict(batched_health) == pytest.approx(asdict(health))
    np.testing.assert_allclose(batched_rebuilt, rebuilt, rtol=1e-5, atol=1e-5)


def test_a_buffer_smaller_than_a_row_still_encodes(standard, monkeypatch):
    monkeypatch.setattr(features, "BATCH_BYTES", 1)
    assert features.encode(standard, "s", rows(3))[0].shape == (3, D_SAE)


def test_constant_activations_have_no_explained_variance(standard, tmp_path):
    encoded, health, _ = features.encode(standard, "s", np.repeat(rows(1), 7, axis=0))
    assert np.isnan(health.explained_variance)
    features.write(tmp_path, "s", encoded, health, "x")
    assert json.loads((tmp_path / "s.json").read_text())["explained_variance"] is None
    assert np.isnan(features.read_health(tmp_path, "s").explained_variance)


def test_written_is_read_and_bytes_repeat(sae, tmp_path):
    encoded, health, _ = features.encode(sae, "s", rows())
    for folder in ("a", "b"):
        features.write(tmp_path / folder, "s", encoded, health, "the activations")
    for name in ("s.npz", "s.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    found = features.read(tmp_path / "a", "s")
    assert found.shape == encoded.shape
    assert found.dtype == np.float32
    assert (found != encoded).nnz == 0
    assert features.read_health(tmp_path / "a", "s") == health
    assert json.loads((tmp_path / "a" / "s.json").read_text())["activations"] == "the activations"
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["s.json", "s.npz"]


def test_a_nonzero_costs_at_most_ten_bytes_on_disk(tmp_path):
    wide = sparse.random_array((2000, 131_072), density=100 / 131_072, rng=0, dtype=np.float32, format="csr")
    features.write(tmp_path, "s", wide, Health(131_072, 100.0, 0.9, 0.0), "x")
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert size <= 10 * wide.nnz
    assert (features.read(tmp_path, "s") != wide).nnz == 0


@pytest.mark.parametrize("damage", ["empty", "junk", "cut", "flipped", "other arrays"])
def test_a_damaged_file_is_named_with_its_remedy(tmp_path, damage):
    path = tmp_path / "s.npz"
    features.write(tmp_path, "s", sparse.csr_array(np.eye(50, dtype=np.float32)), Health(50, 1.0, 1.0, 0.0), "x")
    data = path.read_bytes()
    if damage == "other arrays":
        np.savez(path, data=np.ones(3))
    else:
        cut = {"empty": b"", "junk": b"PK\x03\x04junk", "cut": data[:-30]}
        path.write_bytes(cut.get(damage, data[:150] + b"\xff\xff" + data[152:]))
    with pytest.raises(UserError, match=r"s\.npz: damaged \(.*\); delete it and run `dvc repro`"):
        features.read(tmp_path, "s")
    (tmp_path / "s.json").write_text("{}")
    with pytest.raises(UserError, match=r"s\.json: damaged"):
        features.read_health(tmp_path, "s")


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_pickled_arrays_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "s.npz", data=np.array([Bomb()]), indices=[0], indptr=[0, 1], shape=[1, 1])
    with pytest.raises(UserError, match="damaged"):
        features.read(tmp_path, "s")
    assert not Path("exploded").exists()


def test_missing_features_name_dvc_repro(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for read in (features.read, features.read_health, features.read_reconstruction):
        with pytest.raises(
            UserError,
            match=r"artifacts/features/x/s\.(npz|json|reconstruction.safetensors): not found; `dvc repro` makes it",
        ):
            read(Path("artifacts/features/x"), "s")


def test_activations_of_another_width_are_refused(standard):
    with pytest.raises(UserError, match=r"saes\.s: d_in is 16, but the model's activations have 12 numbers"):
        features.encode(standard, "s", rows()[:, :12])


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
    with pytest.raises(UserError, match=r"saes\.s = .*: give either a path, or a release and an id$"):
        parse(SaeParams, {"layer": 2} | source, "saes.s")


def test_decoder_directions_are_what_a_unit_of_activation_adds(raw_sae):
    ids = np.array([3, 10, 60])
    with torch.inference_mode():
        nothing = raw_sae.decode(torch.zeros(1, D_SAE))
        added = raw_sae.decode(torch.eye(D_SAE)[ids]) - nothing
    np.testing.assert_allclose(features.directions(raw_sae, ids).decoder, added.numpy(), rtol=1e-5, atol=1e-6)


def test_encoder_directions_are_the_gradients_of_active_features(raw_sae):
    found = features.directions(raw_sae, np.arange(D_SAE))
    x = torch.from_numpy(rows(1)).requires_grad_()
    activations = raw_sae.encode(x)[0]
    active = np.flatnonzero(activations.detach().numpy())
    assert len(active) > 5
    for i in active:
        gradient = torch.autograd.grad(activations[i], x, retain_graph=True)[0][0]
        np.testing.assert_allclose(found.encoder[i], gradient.numpy(), rtol=1e-4, atol=1e-5)


def test_layer_norm_is_folded_into_the_encoder_directions(folders):
    sae = load_sae("layer_norm", SaeParams(layer=LAYER, path=folders / "layer_norm"))
    found = features.directions(sae, np.arange(D_SAE))
    X = rows(4)
    with torch.inference_mode():
        before = (sae.process_sae_in(torch.from_numpy(X)) + sae.b_dec) @ sae.W_enc
    deviation = X.std(axis=1, ddof=1, keepdims=True)
    np.testing.assert_allclose(X @ found.encoder.T, before.numpy() * deviation, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.encoder.sum(axis=1), 0, atol=1e-5)


def test_directions_survive_the_disk_with_their_objective(folders, tmp_path):
    sae = load_sae("batchtopk", SaeParams(layer=LAYER, path=folders / "batchtopk"))
    found = features.directions(sae, np.array([1, 5]))
    features.write_directions(tmp_path / "s.safetensors", found)
    again = features.read_directions(tmp_path / "s.safetensors")
    assert again.objective == "batchtopk"  # although such an SAE is saved as a JumpReLU
    assert again.encoder.shape == again.decoder.shape == (2, D_IN)
    np.testing.assert_array_equal(again.feature_ids, [1, 5])
    np.testing.assert_array_equal(again.decoder, found.decoder)
    (tmp_path / "s.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="damaged"):
        features.read_directions(tmp_path / "s.safetensors")


def test_an_sae_without_a_feature_that_fires_has_no_directions(standard):
    assert features.directions(standard, np.zeros(0, dtype=np.int64)).decoder.shape == (0, D_IN)

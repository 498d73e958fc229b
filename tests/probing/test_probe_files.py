import json

import numpy as np
import pytest

from planted import QUICK, SHARED, layer_domain, sae_domain
from sae_transfer.core import files
from sae_transfer.core.errors import UserError
from sae_transfer.core.space import residual_stream, sae_features
from sae_transfer.probing import probe_files
from sae_transfer.probing.kinds import Sources, fit


@pytest.fixture(scope="module")
def fitted():
    """Probes with and without feature ids and encoder, with C and cv_auc missing and given, controls among them."""
    train, stream = sae_domain(0, n=120, planted={SHARED: (0.1, 0.8)}), layer_domain(0, n=120)
    sparse = fit(sae_features("s", 2), Sources(train, stream, stream), 0, QUICK)
    return sparse + fit(residual_stream(2), stream, 0, QUICK)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s/a.safetensors"


def test_what_is_read_is_what_was_written(fitted, path):
    probe_files.write(path, fitted)
    found = probe_files.read(path)
    assert len(found) == len(fitted)
    for one, other in zip(fitted, found, strict=True):
        for name, value in vars(one).items():
            again = getattr(other, name)
            np.testing.assert_array_equal(value, again)
            assert type(value) is type(again) or isinstance(value, float), name
            if isinstance(value, np.ndarray):
                assert value.dtype == again.dtype
    for name in ("feature_ids", "encoder", "oof_logits"):
        assert {getattr(probe, name) is None for probe in found} == {True, False}


def test_a_probe_that_was_read_scores_the_same_bits(fitted, path):
    probe_files.write(path, fitted)
    spaces = {True: sae_domain(1).X, False: layer_domain(1).X}
    for one, other in zip(fitted, probe_files.read(path), strict=True):
        X = spaces[one.feature_ids is not None]
        scores = one.score(X)
        np.testing.assert_array_equal(scores, other.score(X))
        np.testing.assert_array_equal(one.probability(scores), other.probability(scores))


def test_equal_probes_give_equal_bytes_in_one_file(fitted, tmp_path):
    paths = [tmp_path / folder / "p.safetensors" for folder in "abc"]
    for path in paths[:2]:
        probe_files.write(path, fitted)
    probe_files.write(paths[2], probe_files.read(paths[0]))
    assert len({path.read_bytes() for path in paths}) == 1
    assert list(paths[0].parent.iterdir()) == [paths[0]]


def about(path):
    return json.loads(files.read_about(path)["probes"])


def test_what_is_missing_is_null_in_the_metadata(fitted, path):
    probe_files.write(path, fitted)
    (told,) = [each for each in about(path) if each["kind"] == "mean_difference"]
    assert told["C"] is None
    assert "weights" not in told


def test_no_probes_are_a_file_too(path):
    probe_files.write(path, [])
    assert probe_files.read(path) == []


def test_a_missing_file_is_named(path):
    with pytest.raises(UserError, match=r"s/a\.safetensors: not found; `dvc repro` makes it"):
        probe_files.read(path)


@pytest.mark.parametrize("kept", [0, 100, -7])
def test_a_damaged_file_is_named(fitted, path, kept):
    probe_files.write(path, fitted)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"a\.safetensors: damaged \(.*\); delete it and run `dvc repro`"):
        probe_files.read(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda all_: [*all_, all_[0]],  # more than there are arrays for
        lambda all_: {"a": 1},
        lambda all_: [{"colour": 1}],
        lambda all_: 5,
    ],
)
def test_a_file_of_another_version_is_named(fitted, path, change):
    probe_files.write(path, fitted)
    arrays, _ = files.read_arrays(path)
    files.write_arrays(path, arrays, {"probes": json.dumps(change(about(path)))})
    with pytest.raises(UserError, match=rf"{path}: no probes of this version \(.*\); delete it and run `dvc repro`"):
        probe_files.read(path)
    files.write_arrays(path, arrays, {})
    with pytest.raises(UserError, match="no probes of this version"):
        probe_files.read(path)

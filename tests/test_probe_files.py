import json

import numpy as np
import pytest

from planted import QUICK, SHARED, layer_domain, sae_domain
from sae_transfer import probe_files, probes
from sae_transfer.records import UserError

FILES = ("probes.json", "probes.safetensors")


@pytest.fixture(scope="module")
def fitted():
    """Probes with and without feature ids, with C and cv_auc missing and given, controls among them."""
    sparse = probes.sae_probes(sae_domain(0, n=120, planted={SHARED: (0.1, 0.8)}), 0, QUICK)
    return sparse + probes.layer_probes(layer_domain(0, n=120), 0, QUICK)


def test_what_is_read_is_what_was_written(fitted, tmp_path):
    probe_files.write(tmp_path, fitted)
    found = probe_files.read(tmp_path)
    assert len(found) == len(fitted)
    for one, other in zip(fitted, found, strict=True):
        for name, value in vars(one).items():
            again = getattr(other, name)
            np.testing.assert_array_equal(value, again)
            assert type(value) is type(again) or isinstance(value, float), name
            if isinstance(value, np.ndarray):
                assert value.dtype == again.dtype


def test_a_probe_that_was_read_scores_the_same_bits(fitted, tmp_path):
    probe_files.write(tmp_path, fitted)
    spaces = {True: sae_domain(1).X, False: layer_domain(1).X}
    for one, other in zip(fitted, probe_files.read(tmp_path), strict=True):
        X = spaces[one.feature_ids is not None]
        scores = one.score(X)
        np.testing.assert_array_equal(scores, other.score(X))
        np.testing.assert_array_equal(one.probability(scores), other.probability(scores))


def test_equal_probes_give_equal_bytes(fitted, tmp_path):
    for folder in ("a", "b"):
        probe_files.write(tmp_path / folder, fitted)
    probe_files.write(tmp_path / "c", probe_files.read(tmp_path / "a"))
    for name in FILES:
        assert len({(tmp_path / folder / name).read_bytes() for folder in "abc"}) == 1
        assert sorted(path.name for path in (tmp_path / "a").iterdir()) == list(FILES)


def test_what_is_missing_is_null_in_the_json(fitted, tmp_path):
    probe_files.write(tmp_path, fitted)
    (about,) = [
        each for each in json.loads((tmp_path / "probes.json").read_text()) if each["kind"] == "mean_difference"
    ]
    assert about["C"] is None
    assert "weights" not in about


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(fitted, tmp_path, name):
    probe_files.write(tmp_path, fitted)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: not found"):
        probe_files.read(tmp_path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0, 100, -7])
def test_a_damaged_file_is_named(fitted, tmp_path, name, kept):
    probe_files.write(tmp_path, fitted)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:kept])
    with pytest.raises(UserError, match=name):
        probe_files.read(tmp_path)


@pytest.mark.parametrize("change", [lambda all_: [*all_, all_[0]], lambda all_: {"a": 1}, lambda all_: [{"colour": 1}]])
def test_files_that_do_not_fit_together_are_named(fitted, tmp_path, change):
    probe_files.write(tmp_path, fitted)
    path = tmp_path / "probes.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=rf"{tmp_path}: probes.json and probes.safetensors do not fit"):
        probe_files.read(tmp_path)

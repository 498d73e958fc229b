import copy
from pathlib import Path

import pytest
import yaml

from sae_transfer import checks
from sae_transfer.config import Section
from sae_transfer.records import UserError

ROOT = Path(__file__).parents[1]
DEMO = yaml.safe_load((ROOT / "params.yaml").read_text())


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder in which every file that the demo's params name is there, and those params."""
    monkeypatch.chdir(tmp_path)
    for folder in ("models/demo/model", "models/demo/saes", "data/demo"):
        (tmp_path / folder).mkdir(parents=True)
    for dataset in DEMO["datasets"].values():
        (tmp_path / dataset["path"]).touch()
    return copy.deepcopy(DEMO)


def test_the_demos_params_are_in_order(project):
    checks.check_params(Section(project))


def rename(params, *path, to):
    *outer, last = path
    for name in outer:
        params = params[name]
    params[to] = params.pop(last)


def assign(params, *path, value):
    *outer, last = path
    for name in outer:
        params = params[name]
    params[last] = value


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: rename(p, "probe", to="prob"), "unknown section prob; did you mean probe"),
        (lambda p: p["study"]["datasets"].append("pasages"), "study.datasets names pasages.*did you mean passages"),
        (lambda p: p["study"]["saes"].append("narow_3"), "study.saes names narow_3.*did you mean narrow_3"),
        (
            lambda p: assign(p, "model", "layers", value=[2]),
            r"saes.narrow_3 reads layer 3; add it to model.layers \[2\]",
        ),
        (
            lambda p: assign(p, "datasets", "passages", "template", value="defualt"),
            "datasets.passages: template defualt is unknown; did you mean default",
        ),
        (lambda p: assign(p, "datasets", "sums", "n_train", value=7), "datasets.sums.n_train = 7: expected an even"),
        (lambda p: assign(p, "datasets", "sums", "path", value="mine.csv"), "mine.csv: not found; correct it"),
        (
            lambda p: assign(p, "model", "identity", value="models/other"),
            "models/other: not found; `dvc pull models.dvc`",
        ),
        (
            lambda p: assign(p, "datasets", "sums", "path", value="data/demo/x"),
            "data/demo/x: not found; `dvc pull data.dvc`",
        ),
        (
            lambda p: assign(p, "tracking", "url", value="http://127.0.0.1:5000"),
            "unknown key tracking.url; did you mean uri",
        ),
        (
            lambda p: assign(p, "transfer", "resample", value=10),
            "unknown key transfer.resample; did you mean resamples",
        ),
    ],
)
def test_one_line_names_the_mistake_and_the_remedy(project, spoil, message):
    spoil(project)
    with pytest.raises(UserError, match=message) as caught:
        checks.check_params(Section(project))
    assert "\n" not in str(caught.value)

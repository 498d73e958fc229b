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
            lambda p: assign(p, "datasets", "sums", "path", value="data/external/squad"),
            "data/external/squad: not found; `sae-transfer data fetch squad` brings it",
        ),
        (lambda p: assign(p, "datasets", "sums", "path", value="data/external/mine"), "mine: not found; correct it"),
        (
            lambda p: assign(p, "model", "identity", value="models/other"),
            "models/other: not found; `dvc pull models.dvc`",
        ),
        (
            lambda p: assign(p, "datasets", "sums", "path", value="data/demo/x"),
            "data/demo/x: not found; `dvc pull data.dvc`",
        ),
        (lambda p: assign(p, "verbal", "abstain", value=["no"]), "unknown key verbal.abstain; did you mean abstaining"),
        (
            lambda p: assign(p, "probe", "narow_3", value={"people": {"N": [8]}}),
            "probe.narow_3 names no space; did you mean narrow_3",
        ),
        (
            lambda p: assign(p, "probe", "narrow_3", value={"peple": {"N": [8]}}),
            "probe.narrow_3.peple names no dataset; did you mean people",
        ),
        (
            lambda p: assign(p, "probe", "layer_3", value={"people": {"N": [8]}}),
            "probe.layer_3.people.N: the probes of",
        ),
        (lambda p: p["sweep"].update(C=[1.0, 0.1]), "C runs from the smaller to the larger, not 1 to 0.1"),
        (lambda p: p["sweep"].update(ranking=[]), "ranking and scaling each need a choice"),
        (lambda p: p["sweep"].update(grid=True, C=[0.01, 1.0]), "leaves out 0.001 of the grid probe.C; widen it"),
        (lambda p: p["sweep"].update(grid=True, scaling=["none"]), "sweep.scaling lacks the grid's rms; add it"),
        (lambda p: p["sweep"].update(grid=True, trials=29), "sweep.trials = 29, but the grid has 30 points; raise it"),
        (
            lambda p: assign(p, "tracking", "url", value="http://127.0.0.1:5000"),
            "unknown key tracking.url; did you mean uri",
        ),
        (
            lambda p: assign(p, "transfer", "resample", value=10),
            "unknown key transfer.resample; did you mean resamples",
        ),
        (
            lambda p: assign(p, "bootstrap", "resamples", value=1),
            "bootstrap.resamples = 1: .*greater than or equal to 2",
        ),
        (
            lambda p: assign(p, "generalization", "few_labels", value=[15]),
            "generalization.few_labels.0 = 15: Input should be a multiple of 2",
        ),
        (
            lambda p: assign(p, "generalization", "good", value=0.9),
            "unknown key generalization.good; did you mean good_auc",
        ),
    ],
)
def test_one_line_names_the_mistake_and_the_remedy(project, spoil, message):
    spoil(project)
    with pytest.raises(UserError, match=message) as caught:
        checks.check_params(Section(project))
    assert "\n" not in str(caught.value)

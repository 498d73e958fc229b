"""Sweeps in a real MLflow store."""

import sqlite3
from dataclasses import replace

import pytest

from sae_transfer.core.errors import UserError
from sae_transfer.tracking import TrackingParams, location
from sae_transfer.tracking.contents import Content
from sae_transfer.tracking.projection import PARENT
from sae_transfer.tracking.sweeps import log_sweeps
from sae_transfer.tuning.trials import Sweep, Trial

PARAMS = TrackingParams()
SPACE = {"mode": "auc", "n_max": 8, "C": [0.001, 10.0], "rows": "ab12"}


def trial(number, area, n=2, **attributes):
    params = {"C": 0.1 * (number + 1), "N": n, "ranking": "auc", "scaling": "rms"}
    return Trial(number, "complete", params, area, attributes, 0.5)


BEST = {"chosen": True, "auc.alpha": 0.9, "auc_low.alpha": 0.8, "auc_high.alpha": 0.95, "reason.beta": "8 groups"}
FAILED = Trial(2, "fail", {"C": 1.0}, None, {})
ALPHA = Sweep("s", "small", "alpha", SPACE, (trial(0, 0.7), trial(1, 0.8, 4, **BEST), FAILED))
BETA = replace(ALPHA, train="beta")


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """A store that MLflow has made: making one takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with location.opened(PARAMS, folder):
            return folder / "mlflow.db"


@pytest.fixture
def client(empty_store, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlruns").mkdir()
    with sqlite3.connect(empty_store) as source, sqlite3.connect(tmp_path / "mlruns/mlflow.db") as target:
        source.backup(target)
    with location.opened(PARAMS) as store:
        return store.client


def runs(client, kind):
    experiment = client.get_experiment_by_name("sae-transfer")
    found = client.search_runs([experiment.experiment_id], f"tags.kind = '{kind}'", max_results=100)
    return sorted(found, key=lambda run: run.info.run_name)


def test_trials_are_the_children_of_a_run_of_the_sweep(client):
    log_sweeps([ALPHA, BETA], PARAMS)
    parents = runs(client, "sweep")
    assert [run.info.run_name for run in parents] == ["sweep s/small/alpha", "sweep s/small/beta"]
    assert {run.info.status for run in parents} == {"FINISHED"}
    assert parents[0].data.params["n_max"] == "8"
    assert parents[0].data.params["train"] == "alpha"
    assert parents[0].data.metrics["cv_auc"] == 0.8
    assert parents[0].data.metrics["n_features"] == 4
    assert parents[0].data.metrics["auc_low.alpha"] == 0.8
    children = [run for run in runs(client, "trial") if run.data.tags[PARENT] == parents[0].info.run_id]
    assert [run.info.run_name for run in children] == ["trial 0", "trial 1", "trial 2"]
    assert [run.info.status for run in children] == ["FINISHED", "FINISHED", "FAILED"]
    assert children[1].data.params == {
        "sae": "small",
        "train": "alpha",
        "C": "0.2",
        "N": "4",
        "ranking": "auc",
        "scaling": "rms",
    }
    assert children[1].data.metrics == {
        "cv_auc": 0.8,
        "cv_log_loss": 0.5,
        "n_features": 4.0,
        "auc.alpha": 0.9,
        "auc_low.alpha": 0.8,
        "auc_high.alpha": 0.95,
    }
    assert children[0].data.metrics == {"cv_auc": 0.7, "cv_log_loss": 0.5, "n_features": 2.0}
    assert [run.data.tags["chosen"] for run in children] == ["no", "yes", "no"]


def everything(client):
    kinds = ("sweep", "trial")
    return [
        (r.info.run_id, r.info.status, r.data.params, r.data.metrics, r.data.tags)
        for k in kinds
        for r in runs(client, k)
    ]


def test_written_again_it_adds_nothing(client):
    log_sweeps([ALPHA, BETA], PARAMS)
    before = everything(client)
    log_sweeps([ALPHA, BETA], PARAMS)
    assert everything(client) == before
    history = client.get_metric_history(runs(client, "sweep")[0].info.run_id, "cv_auc")
    assert len(history) == 1


def test_more_trials_add_their_runs_and_move_what_is_chosen(client):
    log_sweeps([ALPHA], PARAMS)
    first = {run.info.run_id for run in runs(client, "trial")}
    more = replace(
        ALPHA, trials=(trial(0, 0.7), trial(1, 0.8, 4), FAILED, trial(3, 0.9, 8, **BEST | {"auc.alpha": 0.92}))
    )
    log_sweeps([more], PARAMS)
    children = runs(client, "trial")
    assert first < {run.info.run_id for run in children}
    assert len(children) == 4
    assert [run.data.tags["chosen"] for run in children] == ["no", "no", "no", "yes"]
    (parent,) = runs(client, "sweep")
    assert parent.data.metrics["trials"] == 3
    assert parent.data.metrics["auc.alpha"] == 0.92


def test_a_sweep_of_another_space_supersedes_the_one_of_its_name(client):
    log_sweeps([ALPHA], PARAMS)
    log_sweeps([replace(ALPHA, params=SPACE | {"n_max": 4})], PARAMS)
    old, new = sorted(runs(client, "sweep"), key=lambda run: -int(run.data.params["n_max"]))
    assert (old.data.tags["superseded"], new.data.tags["superseded"]) == ("yes", "no")
    trials = {(run.data.tags[PARENT], run.data.tags["superseded"]) for run in runs(client, "trial")}
    assert trials == {(old.info.run_id, "yes"), (new.info.run_id, "no")}
    assert len({run.data.tags["settings"] for run in runs(client, "trial")}) == 6
    log_sweeps([ALPHA], PARAMS)
    again = sorted(runs(client, "sweep"), key=lambda run: -int(run.data.params["n_max"]))
    assert [run.data.tags["superseded"] for run in again] == ["no", "yes"]


def test_a_run_that_a_kill_left_half_written_is_written_anew(client, monkeypatch):
    calls, whole = [], type(client).log_batch

    def interrupted(self, run_id, *args, **kwargs):
        calls.append(run_id)
        if len(calls) == 3:  # the parent's, the first trial's, and now
            raise KeyboardInterrupt
        return whole(self, run_id, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(type(client), "log_batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            log_sweeps([ALPHA], PARAMS)
    assert [run.info.status for run in runs(client, "trial")] == ["FINISHED", "RUNNING"]
    log_sweeps([ALPHA], PARAMS)
    assert [run.info.status for run in runs(client, "trial")] == ["FINISHED", "FINISHED", "FAILED"]
    assert [run.info.status for run in runs(client, "sweep")] == ["FINISHED"]
    assert len(runs(client, "sweep")[0].data.params) == 3 + len(SPACE)


def test_it_goes_where_the_cells_go_and_no_run_of_theirs_is_touched(client, tmp_path):
    with location.opened(PARAMS) as store:
        cell = store.write(Content("cell", {"C": "1"}, {"auc": 0.5}), {"kind": "cell", "superseded": "no"}, 1)
    before = client.get_run(cell).to_dictionary()
    log_sweeps([ALPHA], PARAMS)
    assert client.get_run(cell).to_dictionary() == before
    experiment = client.get_experiment_by_name("sae-transfer")
    assert {run.info.experiment_id for run in runs(client, "trial")} == {experiment.experiment_id}
    mine = TrackingParams(uri=f"sqlite:///{tmp_path}/other.db", experiment="mine")
    log_sweeps([BETA], mine)
    assert len(runs(client, "sweep")) == 1
    with location.opened(mine) as store:
        assert [run.info.run_name for run in store.runs({"kind": "sweep"})] == ["sweep s/small/beta"]


def test_a_store_that_does_not_answer_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(
        UserError, match=r"MLflow server http://127\.0\.0\.1:9: no answer .*studies/ are whole"
    ) as caught:
        log_sweeps([ALPHA], PARAMS)
    assert "\n" not in str(caught.value)
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"no database" * 1000)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{broken}")
    with pytest.raises(UserError, match=r"broken\.db: damaged"):
        log_sweeps([ALPHA], PARAMS)
    assert broken.read_bytes() == b"no database" * 1000

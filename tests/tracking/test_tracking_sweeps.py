"""Sweeps in a real MLflow store."""

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from sae_transfer.core.errors import UserError
from sae_transfer.tracking import TrackingParams, location, view
from sae_transfer.tracking.contents import Content
from sae_transfer.tracking.projection import PARENT
from sae_transfer.tracking.sweeps import log_sweeps
from sae_transfer.tuning.trials import Sweep, Trial

PARAMS = TrackingParams()
SPACE = {"objective": "log_loss", "mode": "best", "n_max": 8, "C": [0.001, 10.0], "rows": "ab12"}


def trial(number, loss, n=2, **attributes):
    params = {"C": 0.1 * (number + 1), "N": n, "ranking": "auc", "scaling": "rms"}
    return Trial(number, "complete", params, loss, attributes, loss, 1 - loss)


BEST = {"chosen": True, "auc.alpha": 0.9, "auc_low.alpha": 0.8, "auc_high.alpha": 0.95, "auc.beta": 0.7}
FAILED = Trial(2, "fail", {"C": 1.0}, None, {})
UNTUNED = {"N": 2, "C": 1.0, "auc": 0.6, "log_loss": 0.4, "auc.alpha": 0.85, "auc.beta": 0.75}
ALPHA = Sweep("s", "small", "alpha", SPACE, (trial(0, 0.3), trial(1, 0.2, 4, **BEST), FAILED), UNTUNED)
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


def table_of(client, run, name):
    """A table that lies beside the store."""
    folder = Path(client.get_experiment(run.info.experiment_id).artifact_location.split(":/", 1)[1])
    text = (Path("mlruns/artifacts") / folder / run.info.run_id / "artifacts" / name).read_text()
    listed = json.loads(text)
    return [dict(zip(listed["columns"], row, strict=True)) for row in listed["data"]]


def test_a_run_has_the_winner_and_the_untuned_probe_and_a_table_of_trials(client):
    log_sweeps([ALPHA, BETA], PARAMS)
    found = runs(client, "sweep")
    assert [run.info.run_name for run in found] == ["alpha · small · sweep s", "beta · small · sweep s"]
    assert {run.info.status for run in found} == {"FINISHED"}
    assert found[0].data.params == {"study": "s", "sae": "small", "train": "alpha"} | {
        k: str(v) for k, v in SPACE.items()
    }
    expected = {"trial": 1, "N": 4, "C": 0.2, "cv_log_loss": 0.2, "cv_auc": 0.8, "trials": 2, "ties": 0}
    expected |= {"auc_in_domain": 0.9, "auc_in_domain_low": 0.8, "auc_in_domain_high": 0.95, "auc_ood": 0.7}
    expected |= {"untuned.N": 2, "untuned.C": 1, "untuned.cv_auc": 0.6, "untuned.cv_log_loss": 0.4}
    expected |= {"untuned.auc_in_domain": 0.85, "untuned.auc_ood": 0.75}
    assert expected.items() <= found[0].data.metrics.items()
    assert (found[0].data.tags["ranking"], found[0].data.tags["scaling"]) == ("auc", "rms")
    shown = table_of(client, found[0], "trials.json")
    assert [(row["trial"], row["state"], row["cv_log_loss"]) for row in shown] == [
        (1, "complete", 0.2),
        (0, "complete", 0.3),
        (2, "fail", None),
    ]
    (parent,) = runs(client, "sweep_study")
    assert {run.data.tags[PARENT] for run in found} == {parent.info.run_id}
    winners = table_of(client, parent, "winners.json")
    assert [(row["sae"], row["train"], row["N"]) for row in winners] == [("small", "alpha", 4), ("small", "beta", 4)]
    names = {column.split(".", 1)[1].strip("`") for column in view.SWEEPS}
    assert names <= set(found[0].data.metrics)  # the columns of the view


def everything(client):
    kinds = ("sweep", "sweep_study")
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
    history = client.get_metric_history(runs(client, "sweep")[0].info.run_id, "cv_log_loss")
    assert len(history) == 1


def test_more_trials_bring_the_same_run_up_to_date(client):
    log_sweeps([ALPHA], PARAMS)
    (before,) = runs(client, "sweep")
    better = trial(3, 0.1, 8, **BEST | {"auc.alpha": 0.92})
    log_sweeps([replace(ALPHA, trials=(trial(0, 0.3), trial(1, 0.2, 4), FAILED, better))], PARAMS)
    (after,) = runs(client, "sweep")
    assert after.info.run_id == before.info.run_id
    assert (after.data.metrics["trials"], after.data.metrics["trial"], after.data.metrics["N"]) == (3, 3, 8)
    assert after.data.metrics["auc.alpha"] == 0.92
    assert table_of(client, after, "trials.json")[0]["trial"] == 3


def test_a_sweep_of_another_space_supersedes_the_one_of_its_name(client):
    log_sweeps([ALPHA, BETA], PARAMS)
    log_sweeps([replace(ALPHA, params=SPACE | {"n_max": 4})], PARAMS)
    told = {
        (run.data.params["train"], run.data.params["n_max"]): run.data.tags["superseded"]
        for run in runs(client, "sweep")
    }
    assert told == {("alpha", "8"): "yes", ("alpha", "4"): "no", ("beta", "8"): "no"}
    log_sweeps([ALPHA], PARAMS)
    told = {
        (run.data.params["train"], run.data.params["n_max"]): run.data.tags["superseded"]
        for run in runs(client, "sweep")
    }
    assert told == {("alpha", "8"): "no", ("alpha", "4"): "yes", ("beta", "8"): "no"}


def test_a_run_that_a_kill_left_half_written_is_written_anew(client, monkeypatch):
    calls, whole = [], type(client).log_batch

    def interrupted(self, run_id, *args, **kwargs):
        calls.append(run_id)
        if len(calls) == 3:  # the parent's, the first sweep's, and now
            raise KeyboardInterrupt
        return whole(self, run_id, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(type(client), "log_batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            log_sweeps([ALPHA, BETA], PARAMS)
    assert [run.info.status for run in runs(client, "sweep")] == ["FINISHED", "RUNNING"]
    log_sweeps([ALPHA, BETA], PARAMS)
    assert [run.info.status for run in runs(client, "sweep")] == ["FINISHED", "FINISHED"]


def test_it_goes_where_the_cells_go_and_no_run_of_theirs_is_touched(client, tmp_path):
    with location.opened(PARAMS) as store:
        cell = store.write(Content("cell", {"C": "1"}, {"auc": 0.5}), {"kind": "cell", "superseded": "no"}, 1)
    before = client.get_run(cell).to_dictionary()
    log_sweeps([ALPHA], PARAMS)
    assert client.get_run(cell).to_dictionary() == before
    experiment = client.get_experiment_by_name("sae-transfer")
    assert {run.info.experiment_id for run in runs(client, "sweep")} == {experiment.experiment_id}
    mine = TrackingParams(uri=f"sqlite:///{tmp_path}/other.db", experiment="mine")
    log_sweeps([BETA], mine)
    assert len(runs(client, "sweep")) == 1
    with location.opened(mine) as store:
        assert [run.info.run_name for run in store.runs({"kind": "sweep"})] == ["beta · small · sweep s"]


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

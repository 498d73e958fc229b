"""Results in a real MLflow store: upserts, kills, moves, servers, and what a person is told when it fails."""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from test_tracking_contents import DATASETS, HASHES, cell_runs

from sae_transfer.core.errors import UserError
from sae_transfer.tracking import TrackingParams, contents, location, models, projection, server, view
from sae_transfer.tracking.store import Store
from tables import table as made_up

PARAMS = TrackingParams()
PNG = bytes.fromhex("89504e470d0a1a0a")


@pytest.fixture(autouse=True)
def no_server_elsewhere(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)


@pytest.fixture(scope="module")
def table():
    return made_up(DATASETS, {"narrow_2": 2})


def study(auc=0.5, seed=0, resamples=1000, **files):
    numbers = {"out_of_domain.sparse_1": auc}
    params = {
        "seed": seed,
        "transfer": {"resamples": resamples},
        "model": {"name": "tiny"},
        "saes": {f"sae_{i}": {"layer": i} for i in range(200)},
    }
    pages = {
        "figures/heatmap.png": PNG,
        "report.html": b"<p>",
        **{f"figures/{name}.png": x for name, x in files.items()},
    }
    return contents.study("workspace", params, numbers, ["Yes. So."], {"saes": pd.DataFrame({"l0": [17.5]})}, pages, {})


def track(folder, table, *, name="workspace", parent=None, params=PARAMS):
    probes = models.probes_run(name, table, HASHES, {})
    return projection.project(params, name, parent or study(), cell_runs(table), probes, folder)


def runs(folder, kind="cell", params=PARAMS, **tags):
    with location.opened(params, folder) as store:
        return store.runs({"kind": kind, **tags})


@pytest.fixture(scope="module")
def made(table, tmp_path_factory):
    """A store with one study; no test changes it."""
    folder = tmp_path_factory.mktemp("store") / "mlruns"
    track(folder, table)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "mlruns"))


def counts(done):
    return done.created, done.kept, done.superseded


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def artifacts(folder, run):
    """What lies in the folder of a run, by path."""
    place = folder / "artifacts/sae-transfer" / run.info.run_id / "artifacts"
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_one_parent_a_study_and_one_child_a_cell(made, table):
    (parent,) = runs(made, "study")
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics == {"out_of_domain.sparse_1": 0.5}
    assert parent.data.params == dict(study().params)
    assert len(parent.data.params) == 202  # more than MLflow takes in one request
    shown = {"saes.json": study().tables["saes.json"].encode(), "figures/heatmap.png": PNG, "report.html": b"<p>"}
    assert artifacts(made, parent) == shown
    found, wanted = runs(made), cell_runs(table)
    assert len(found) == len(wanted) == 14
    by_name = {run.info.run_name: run for run in found}
    for cell in wanted:
        run = by_name[cell.name]
        assert run.info.status == "FINISHED"
        assert run.data.params == dict(cell.params)
        assert run.data.metrics == pytest.approx(dict(cell.metrics))
        assert cell.tags.items() <= run.data.tags.items()
        assert run.data.tags["git_commit"] == "c"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["superseded"] == "no"
        assert json.loads(run.data.tags["mlflow.loggedArtifacts"])[-1] == {"path": "all_settings.json", "type": "table"}
        assert artifacts(made, run) == {name: text.encode() for name, text in cell.tables.items()}


def test_filters_that_people_type_find_their_runs(made):
    with location.opened(PARAMS, made) as store:

        def names(words):
            return sorted(run.info.run_name for run in store.client.search_runs([store.experiment], words))

        pair = "params.train = 'alpha' and params.test = 'beta'"
        assert names(pair) == [f"alpha → beta · {space}" for space in ("layer_2", "narrow_2", "text")]
        assert names(f"{pair} and metrics.`sparse_1.auc` > 0") == ["alpha → beta · narrow_2"]
        assert names(f"{pair} and metrics.auc > 0") == []  # no number of a run is of a probe that it does not name
        (run,) = store.client.search_runs([store.experiment], f"{pair} and params.space = 'narrow_2'")
        feature = run.data.tags["sparse_1.features"]
        assert "alpha → beta · narrow_2" in names(f"tags.`sparse_1.features` = '{feature}'")
        last = run.data.tags["sparse_n.features"].split()[-1]
        assert "alpha → beta · narrow_2" in names(f"tags.`sparse_n.features` LIKE '% {last} %'")
        experiment = store.client.get_experiment(store.experiment)
        found = {name: names(searched(experiment, name)) for name in (view.TABLE_VIEW, view.CHARTS_VIEW, "studies")}
        pairs = [f"{a} → {b} · narrow_2" for a in DATASETS for b in DATASETS]
        assert found[view.TABLE_VIEW] == pairs
        assert found[view.CHARTS_VIEW] == ["alpha → beta · narrow_2", "beta → alpha · narrow_2", "workspace · tiny"]
        assert found["studies"] == ["workspace · tiny"]


def test_every_filter_of_the_docs_and_of_the_note_is_one_that_mlflow_takes(made):
    page = (Path(__file__).parents[2] / "docs/mlflow.md").read_text()
    told = re.findall(r"`+((?:params|tags|metrics)\.[^|]*?[^`|])`+ \|\n", page + view.NOTE)
    assert len(told) > 10
    with location.opened(PARAMS, made) as store:
        for words in told:
            store.client.search_runs([store.experiment], words)


def test_running_it_again_adds_nothing(folder, table):
    before, files_before = {run.info.run_id for run in runs(folder)}, files(folder / "artifacts")
    assert counts(track(folder, table)) == (0, len(before), 0)
    shutil.copy(folder / "mlflow.db", folder / "copy.db")
    (folder / "copy.db").replace(folder / "mlflow.db")  # as after a clone: it has to ask the store itself
    assert counts(track(folder, table)) == (0, len(before), 0)
    assert {run.info.run_id for run in runs(folder)} == before
    assert files(folder / "artifacts") == files_before
    assert len(runs(folder, "study")) == 1


def test_nothing_new_is_told_without_mlflow(folder, table, monkeypatch):
    n = len(runs(folder))
    track(folder, table)
    with monkeypatch.context() as patch:
        patch.setattr(location, "opened", None)
        assert counts(track(folder, table)) == (0, n, 0)
    with location.opened(PARAMS, folder) as store:  # whoever writes to the store makes it be asked again
        store.client.set_tag(runs_of(store)[0].info.run_id, "superseded", "yes")
    track(folder, table)
    assert len(runs(folder, superseded="no")) == n


def changed(table, by=0.01):
    """One cell of the 1-sparse probe, alpha to beta, of rank 1."""
    here = (table["probe"] == "sparse_1") & (table["rank"] == 1) & (table["train"] == "alpha")
    here &= table["test"] == "beta"
    assert here.sum() == 1
    return table.assign(auc=table["auc"] + np.where(here, by, 0.0))


def test_a_changed_cell_is_a_new_run_and_the_old_one_is_superseded(folder, table):
    before = {run.info.run_id for run in runs(folder)}
    done = track(folder, changed(table))
    assert counts(done) == (1, len(before) - 1, 1)
    (old,) = runs(folder, superseded="yes")
    (new,) = [run for run in runs(folder) if run.info.run_id not in before]
    assert (new.data.params, new.info.run_name) == (old.data.params, old.info.run_name)
    assert new.data.metrics["sparse_1.auc"] == pytest.approx(old.data.metrics["sparse_1.auc"] + 0.01)
    assert new.info.run_name == "alpha → beta · narrow_2"


def test_going_back_revives_the_old_run(folder, table):
    track(folder, changed(table))
    n = len(runs(folder))
    done = track(folder, table)
    assert done.created == 0
    assert done.superseded == 1
    assert len(runs(folder)) == n
    assert len(runs(folder, superseded="no")) == n - 1


def test_a_cell_that_is_gone_is_superseded_and_other_studies_are_left_alone(folder, table):
    n = len(runs(folder))
    track(folder, table, name="brave-newt", parent=study(seed=1))
    assert len(runs(folder, study="brave-newt", superseded="no")) == n
    assert len(runs(folder, "study")) == 2
    assert len(logged(folder)) == 2 * n_probes(table)
    done = track(folder, table[table["space"] != "narrow_2"])
    assert done.created == 0
    assert done.superseded == sum(run.data.params["space"] == "narrow_2" for run in runs(folder, study="workspace"))
    assert len(runs(folder, study="brave-newt", superseded="no")) == n


def resampled(table):
    """Other bounds of the same numbers, as from another number of resamples."""
    return table.assign(auc_low=table["auc_low"] - 0.01, auc_train_sd=0.5)


def test_an_experiment_that_resamples_anew_changes_intervals_in_place(folder, table):
    before, n_models = {run.info.run_id for run in runs(folder)}, len(logged(folder))
    done = track(folder, resampled(table), name="fewer", parent=study(resamples=4))
    assert counts(done) == (0, len(before), 0)
    found = runs(folder, study="fewer", superseded="no")
    assert {run.info.run_id for run in found} == before
    wanted = {cell.name: cell for cell in cell_runs(resampled(table))}
    for run in found:
        assert run.data.metrics == pytest.approx(dict(wanted[run.info.run_name].metrics))
        shown = artifacts(folder, run)["all_settings.json"]
        assert shown == wanted[run.info.run_name].tables["all_settings.json"].encode()
    (parent,) = runs(folder, "study")
    assert (parent.data.tags["study"], parent.data.tags["transfer.resamples"]) == ("fewer", "4")
    assert len(logged(folder)) == n_models
    assert counts(track(folder, table)) == (0, len(before), 0)  # and back
    assert {run.info.run_id for run in runs(folder, study="workspace", superseded="no")} == before


def logged(folder):
    with location.opened(PARAMS, folder) as store:
        return store.client.search_logged_models([store.experiment], max_results=1000)


def n_probes(table):
    return len(models.probes_run("workspace", table, HASHES, {}).models)


def test_models_hold_the_matrix_of_train_and_test(folder, table):
    found = {model.name: model for model in logged(folder)}
    assert len(found) == n_probes(table)
    rows = table.query("space == 'narrow_2' and probe == 'sparse_1' and rank == 1 and test_variation == 'default'")
    for train in DATASETS:
        model = found[f"{train} · narrow_2 sparse_1"]
        assert (model.status, model.model_type, model.params["train"]) == ("READY", "sparse_1", train)
        own = rows[rows["train"] == train]
        shown = {(metric.dataset_name, metric.key): metric.value for metric in model.metrics}
        assert shown == {(test, "auc"): area for test, area in zip(own["test"], own["auc"], strict=True)}
        assert {metric.dataset_digest for metric in model.metrics} == {h[:8] for h in HASHES.values()}
    (run,) = runs(folder, "probes")
    assert {each.dataset.name for each in run.inputs.dataset_inputs} == set(DATASETS)
    before = {model.model_id for model in found.values()}
    track(folder, changed(table))  # one of them is another probe now: the old ones go
    after = logged(folder)
    assert len(after) == len(found)
    assert not before & {model.model_id for model in after}
    with location.opened(PARAMS, folder) as store:  # what somebody else logged stays
        mine = store.client.create_logged_model(store.experiment, "mine")
    track(folder, table)
    assert mine.model_id in {model.model_id for model in logged(folder)}


def test_other_headline_numbers_update_the_parent_and_other_params_make_another(folder, table):
    (first,) = runs(folder, "study")
    track(folder, table, parent=study(auc=0.75, curve=PNG))
    (same,) = runs(folder, "study")
    assert same.info.run_id == first.info.run_id
    assert same.data.metrics == {"out_of_domain.sparse_1": 0.75}
    assert artifacts(folder, same)["figures/curve.png"] == PNG
    assert {run.data.tags["mlflow.parentRunId"] for run in runs(folder)} == {first.info.run_id}
    track(folder, table, parent=study(seed=1))
    (new,) = runs(folder, "study", superseded="no")
    assert new.info.run_id != first.info.run_id
    assert {run.data.tags["mlflow.parentRunId"] for run in runs(folder)} == {new.info.run_id}


def test_a_deleted_store_is_rebuilt_whole(folder, table):
    n, n_files = len(runs(folder)), len(files(folder / "artifacts"))
    copy = folder.parent / "another"  # MLflow remembers within a process that a store is set up
    folder.rename(copy)
    (copy / "mlflow.db").unlink()
    assert counts(track(copy, table)) == (n, 0, 0)
    assert len(files(copy / "artifacts")) == n_files  # the old runs' artifacts are gone with them


def test_a_run_that_a_person_deleted_comes_back(folder, table):
    with location.opened(PARAMS, folder) as store:
        store.client.delete_run(runs_of(store)[0].info.run_id)
    assert track(folder, table).created == 1


def searched(experiment, view_name):
    """What a shipped view filters by."""
    return json.loads(json.loads(experiment.tags[f"mlflow.sharedViewState.{view_name}"])["state"])["searchFilter"]


def runs_of(store):
    return store.runs({"kind": "cell"})


KILLED = """
import os, signal, sys
sys.path[:0] = {paths!r}
from pathlib import Path
import test_tracking as t
from mlflow.tracking import MlflowClient
calls, owner = [], {owner}
function = owner.{step}
def killing(*words, **more):
    calls.append(1)
    if len(calls) == {call}:
        {last}
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*words, **more)
owner.{step} = killing
t.track(Path({folder!r}), t.made_up(t.DATASETS, {{"narrow_2": 2}}), name="second", parent=t.study(seed=1))
"""


def track_and_kill(folder, step, call, *, owner="MlflowClient", after=False):
    """kill -9 of a real process, before or after a call of a function."""
    words = {"step": step, "call": call, "owner": owner, "last": "function(*words, **more)" if after else ""}
    here = [str(Path(__file__).parent), *filter(None, sys.path)]
    code = KILLED.format(**words, paths=here, folder=str(folder))
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr


@pytest.mark.parametrize(
    ("step", "call", "after"),
    [
        ("log_batch", 1, False),  # the parent has its artifacts and no numbers
        ("create_run", 5, True),  # a cell has its name alone
        ("log_batch", 9, True),  # a cell has its numbers
        ("set_terminated", 6, True),  # a cell is whole, the others are not there
    ],
)
def test_killed_at_any_step_and_run_again_leaves_whole_runs_alone(step, call, after, folder, table):
    track_and_kill(folder, step, call, after=after)
    first = {run.info.run_id for run in runs(folder, study="second") if run.info.status == "FINISHED"}
    n = len(runs(folder, study="workspace"))
    assert len(first) < n
    done = track(folder, table, name="second", parent=study(seed=1))
    assert done.kept == len(first)
    cells, parents = runs(folder, study="second"), runs(folder, "study", study="second")
    assert len(cells) == n
    assert first <= {run.info.run_id for run in cells}
    assert {run.info.status for run in [*cells, *parents]} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in cells} == {parent.info.run_id for parent in parents}
    assert len(parents) == 1
    places = {path.name for path in (folder / "artifacts/sae-transfer").iterdir()}
    assert places == {run.info.run_id for kind in ("cell", "study", "probes") for run in runs(folder, kind)}
    assert {run.info.status for run in runs(folder, "probes")} == {"FINISHED"}
    assert len(logged(folder)) == 2 * n_probes(table)


def test_killed_while_a_run_is_brought_up_to_date(folder, table, monkeypatch):
    def interrupted(*words):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_log", interrupted)
        with pytest.raises(KeyboardInterrupt):
            track(folder, table, parent=study(auc=0.75, heatmap=b"new"))
    track(folder, table)  # results went back meanwhile
    (parent,) = runs(folder, "study")
    assert artifacts(folder, parent)["figures/heatmap.png"] == PNG
    assert parent.data.tags["fingerprint"] == study().fingerprint


@pytest.mark.parametrize(
    ("owner", "step", "call"),
    [
        ("__import__('alembic.op').op", "create_table", 3),  # in the midst of MLflow's migrations
        ("Path", "chmod", 1),  # they are done, but the file has no name yet
    ],
)
def test_killed_while_the_store_is_made_leaves_none_and_the_next_makes_it(owner, step, call, table, tmp_path):
    folder = tmp_path / "mlruns"
    track_and_kill(folder, step, call, owner=owner, after=True)
    assert not (folder / "mlflow.db").exists()
    assert list(folder.glob(".mlflow.db.*"))
    with pytest.raises(UserError, match=r"mlflow\.db: not found"):
        server.serving(folder, free_port()).__enter__()
    assert counts(track(folder, table)) == (14, 0, 0)
    assert {path.name for path in folder.iterdir()} == {"mlflow.db", "artifacts", ".track.lock", ".track.stamp"}


def test_a_half_migrated_store_under_its_own_name_is_told_in_one_line(folder, table):
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        connection.execute("drop table runs")
        connection.commit()
    assert "results/ and studies/ are whole" in refused(folder, changed(table))


def test_a_store_of_the_layout_before_this_one_is_superseded(folder, table):
    with location.opened(PARAMS, folder) as store:
        for run in runs_of(store):
            store.tag(run, settings="", fingerprint="of another format")
    assert counts(track(folder, table)) == (14, 0, 14)


def test_a_number_that_is_gone_makes_a_new_run_since_mlflow_takes_none_back(folder, table):
    here = (table["probe"] == "sparse_1") & (table["rank"] == 1)
    here &= (table["train"] == "alpha") & (table["test"] == "beta")
    gone = table.assign(auc_low=table["auc_low"].where(~here))
    assert counts(track(folder, gone)) == (1, 13, 1)
    (new,) = [run for run in runs(folder, superseded="no") if run.info.run_name == "alpha → beta · narrow_2"]
    assert "sparse_1.auc_low" not in new.data.metrics


# What a person gets wrong: one line each, and what is there stays.


def refused(folder, table, params=PARAMS):
    with pytest.raises(UserError) as told:
        track(folder, table, params=params)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_a_locked_store(folder, table, monkeypatch):
    monkeypatch.setattr(location, "PATIENCE", 0.1)
    with closing(sqlite3.connect(folder / "mlflow.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        said = refused(folder, changed(table))
    assert f"{folder}/mlflow.db: another program writes to it" in said
    assert track(folder, changed(table)).created == 1


def test_another_track_that_never_ends(folder, table, monkeypatch):
    monkeypatch.setattr(location, "WAIT", 0.1)
    with FileLock(folder / ".track.lock"):
        assert "mlruns: another process has held it for 0.1 s; end it" in refused(folder, changed(table))


def test_a_damaged_store_and_one_of_another_mlflow(folder, table):
    database = folder / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("update alembic_version set version_num = 'ffffffffffff'")
        connection.commit()
    assert "of another version of MLflow; delete it, `dvc repro` makes it anew" in refused(folder, table)
    database.write_bytes(b"no database" * 100)
    said = refused(folder, table)
    assert "mlflow.db: damaged; delete it, `dvc repro` makes it anew from results/ (file is not a database)" in said
    assert database.exists()


def test_a_read_only_store(folder):
    """Asked by another user than root, whom permissions do not stop."""
    (folder / "mlflow.db").chmod(0o444)
    folder.chmod(0o555)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.chdir(folder)
            if os.getuid() == 0:
                os.setuid(65534)
            location.check_file(Path("mlflow.db"))
        except BaseException as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    folder.chmod(0o755)
    assert os.read(reading, 1000).decode().startswith("mlflow.db: read-only; make it and its folder writable")


def test_an_experiment_that_was_deleted_in_mlflow(folder, table):
    with location.opened(PARAMS, folder) as store:
        store.client.delete_experiment(store.experiment)
    assert "MLflow experiment sae-transfer was deleted; restore it there" in refused(folder, table)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_a_server_that_is_down_is_one_line_within_seconds_and_shows_no_password(folder, table, monkeypatch):
    down = TrackingParams(uri=f"http://me:secret@127.0.0.1:{free_port()}")
    before = time.monotonic()
    said = refused(folder, table, down)
    assert time.monotonic() - before < 20
    assert "MLflow server http://me:***@127.0.0.1:" in said
    assert "no answer" in said
    assert "results/ and studies/ are whole" in said
    assert "secret" not in said + location.shown(down)


def test_a_port_in_use_and_no_store_yet(folder, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port}: cannot be used .*; choose another: .*--port {port + 1}"):
            server.serving(folder, port).__enter__()
    with pytest.raises(UserError, match=r"mlflow\.db: not found; `dvc repro` makes it"):
        server.serving(tmp_path / "none", free_port()).__enter__()


def get(address, path):
    with urlopen(f"{address}/{path}", timeout=30) as answer:
        return answer.read()


def test_a_remote_server_gets_the_same_runs_and_a_moved_folder_still_opens_its_artifacts(
    folder, table, tmp_path, monkeypatch
):
    """One server for both, since each start takes seconds: it serves a moved copy, and takes a second study."""
    moved = tmp_path / "elsewhere" / "renamed"
    moved.parent.mkdir()
    folder.rename(moved)
    (parent,) = runs(moved, "study")
    before = time.monotonic()
    with server.serving(moved, free_port()) as address:
        took = time.monotonic() - before
        where = f"get-artifact?run_uuid={parent.info.run_id}&path=figures/heatmap.png"
        assert get(address, where) == PNG
        link = server.shipped_view(address, "sae-transfer")
        assert link.startswith(f"{address}/#/experiments/1/runs?")
        assert server.shipped_view(address, "no such experiment") == address

        remote = TrackingParams(uri=address, experiment="remote")
        here = tmp_path / "mlruns here"
        few = table[table["space"] == "narrow_2"]
        done = track(here, few, params=remote)
        assert done.created == 4
        assert counts(track(here, few, params=remote)) == (0, 4, 0)
        assert track(here, changed(few), params=remote).superseded == 1
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)  # wins over the params
        assert location.shown(PARAMS) == address
        found = runs(here, params=TrackingParams(experiment="remote"), superseded="no")
        wanted = {cell.name: cell for cell in cell_runs(changed(few))}
        for run in found:
            assert run.data.params == dict(wanted[run.info.run_name].params)
            assert run.data.metrics == pytest.approx(dict(wanted[run.info.run_name].metrics))
            listed = get(address, f"get-artifact?run_uuid={run.info.run_id}&path=all_settings.json")
            assert json.loads(listed) == json.loads(wanted[run.info.run_name].tables["all_settings.json"])
        assert {path.name for path in here.iterdir()} == {".track.lock"}  # nothing else is kept here
        (started,) = runs(here, "study", params=TrackingParams(experiment="remote"))
        assert get(address, f"get-artifact?run_uuid={started.info.run_id}&path=figures/heatmap.png") == PNG
    assert took < 60
    with pytest.raises(OSError, match="refused"):
        get(address, "health")  # it ended with its block

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

from sae_transfer.records import UserError
from sae_transfer.tracking import TrackingParams, contents, location, projection, server
from tables import table as made_up
from test_tracking_contents import DATASETS, families

PARAMS = TrackingParams()
PNG = bytes.fromhex("89504e470d0a1a0a")


@pytest.fixture(autouse=True)
def no_server_elsewhere(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)


@pytest.fixture(scope="module")
def table():
    return made_up(DATASETS, {"narrow_2": 2})


def study(auc=0.5, seed=0, figures="f"):
    numbers = {"narrow_2": {"sparse_1": {"auc_ood": auc}}}
    params = {"seed": seed, "model": {"name": "tiny"}}
    return contents.study("workspace", params, numbers, {"saes": pd.DataFrame({"l0": [17.5]})}, figures, {})


@pytest.fixture(scope="module")
def figure(tmp_path_factory):
    path = tmp_path_factory.mktemp("figures") / "heatmap.png"
    path.write_bytes(PNG)
    return path


def track(folder, table, figure, *, name="workspace", parent=None, params=PARAMS):
    with location.opened(params, folder) as store:
        return projection.project(store, name, parent or study(), families(table), [figure])


def runs(folder, kind="cell", params=PARAMS, **tags):
    with location.opened(params, folder) as store:
        return store.runs({"kind": kind, **tags})


def models(folder):
    with location.opened(PARAMS, folder) as store:
        return store.models({"kind": "cell"})


@pytest.fixture(scope="module")
def made(table, figure, tmp_path_factory):
    """A store with one study; no test changes it."""
    folder = tmp_path_factory.mktemp("store") / "mlruns"
    track(folder, table, figure)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "mlruns"))


def counts(done):
    return done.created, done.kept, done.superseded


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_one_parent_a_study_and_one_child_a_cell(made, table):
    (parent,) = runs(made, "study")
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics == {"narrow_2/sparse_1/auc_ood": 0.5}
    assert parent.data.params["model.name"] == "tiny"
    found, wanted = runs(made), [cell for family in families(table) for cell in family.cells]
    assert len(found) == len(wanted)
    by_name = {run.info.run_name: run for run in found}
    for cell in wanted:
        run = by_name[cell.name]
        assert run.info.status == "FINISHED"
        assert run.data.params == dict(cell.params)
        assert run.data.metrics == pytest.approx(dict(cell.metrics))
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["superseded"] == "no"
        assert [(i.dataset.name, i.dataset.digest) for i in run.inputs.dataset_inputs] == [
            (each.name, each.digest) for each in cell.datasets
        ]
        place = made / "artifacts/sae-transfer" / run.info.run_id / "artifacts"
        assert {path.name: path.read_text() for path in place.iterdir()} == dict(cell.tables)
    figures = made / "artifacts/sae-transfer" / parent.info.run_id / "artifacts/figures"
    assert (figures / "heatmap.png").read_bytes() == PNG


def test_a_model_for_each_probe_holds_the_row_of_the_matrix(made, table):
    found = {model.name: model for model in models(made)}
    assert set(found) == {family.name for family in families(table)}
    for family in families(table):
        areas = {m.dataset_name: m.value for m in found[family.name].metrics if m.key == "auc"}
        assert areas == {cell.datasets[-1].name: cell.metrics["auc"] for cell in family.cells}
        assert found[family.name].params["train"] == family.params["train"]


def test_bulk_rows_are_those_that_mlflow_itself_writes(table, tmp_path):
    """MLflow's tables may change with its version; then this fails."""
    family = families(table)[0]

    def written(folder, in_bulk):
        with location.opened(PARAMS, folder) as store:
            model = store.start_model(family, {"kind": "cell"}, "")
            if not in_bulk:
                for i, cell in enumerate(family.cells):
                    store.write(cell, {"kind": "cell"}, 1000 + i, model=model)
            else:
                store.write_cells([(cell, 1000 + i) for i, cell in enumerate(family.cells)], {"kind": "cell"}, model)
            store.finish_model(model)
        with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
            tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
            rows = {name: connection.execute(f"select * from {name}").fetchall() for name in tables}
        known = {"tags", "params", "metrics", "latest_metrics", "logged_model_metrics", "inputs", "runs", "datasets"}
        assert known <= {name for name, found in rows.items() if found}
        return {name: sorted(map(_without_ids_and_clock, found)) for name, found in rows.items()}

    ours, theirs = written(tmp_path / "ours", True), written(tmp_path / "theirs", False)
    for name in theirs:
        assert ours[name] == theirs[name], name


def _without_ids_and_clock(row):
    return re.sub("[0-9a-f]{32}", "id", str([x for x in row if not (isinstance(x, int) and x > 1e12)]))


def test_running_it_again_adds_nothing(folder, table, figure):
    before, files_before = {run.info.run_id for run in runs(folder)}, files(folder / "artifacts")
    done = track(folder, table, figure)
    assert counts(done) == (0, len(before), 0)
    assert {run.info.run_id for run in runs(folder)} == before
    assert files(folder / "artifacts") == files_before
    assert len(runs(folder, "study")) == 1


def changed(table, by=0.01):
    """One cell of the 1-sparse probe, alpha to beta, of rank 1."""
    here = (table["probe"] == "sparse_1") & (table["rank"] == 1) & (table["train"] == "alpha")
    here &= table["test"] == "beta"
    assert here.sum() == 1
    return table.assign(auc=table["auc"] + np.where(here, by, 0.0))


def test_a_changed_cell_is_a_new_run_and_the_old_one_is_superseded(folder, table, figure):
    before = {run.info.run_id for run in runs(folder)}
    done = track(folder, changed(table), figure)
    assert counts(done) == (1, len(before) - 1, 1)
    (old,) = runs(folder, superseded="yes")
    (new,) = [run for run in runs(folder) if run.info.run_id not in before]
    assert (new.data.params, new.info.run_name) == (old.data.params, old.info.run_name)
    assert new.data.metrics["auc"] == pytest.approx(old.data.metrics["auc"] + 0.01)
    kept = {model.name: model for model in models(folder)}
    assert len(kept) == len(families(table))  # one a probe still, with the new number and the old ones
    areas = [m.value for m in kept["narrow_2_sparse_1_alpha"].metrics if m.key == "auc"]
    assert sorted(areas) == sorted(cell.metrics["auc"] for cell in _family(changed(table)).cells)


def _family(table):
    return next(family for family in families(table) if family.name == "narrow_2_sparse_1_alpha")


def test_going_back_revives_the_old_run(folder, table, figure):
    track(folder, changed(table), figure)
    n = len(runs(folder))
    done = track(folder, table, figure)
    assert done.created == 0
    assert done.superseded == 1
    assert len(runs(folder)) == n
    assert len(runs(folder, superseded="no")) == n - 1


def test_a_cell_that_is_gone_is_superseded_and_other_studies_are_left_alone(folder, table, figure):
    n = len(runs(folder))
    track(folder, table, figure, name="brave-newt")
    assert len(runs(folder, study="brave-newt", superseded="no")) == n
    assert len(runs(folder, "study")) == 2
    done = track(folder, table[table["space"] != "narrow_2"], figure)
    assert done.created == 0
    assert done.superseded == sum(run.data.params["space"] == "narrow_2" for run in runs(folder, study="workspace"))
    assert len(runs(folder, study="brave-newt", superseded="no")) == n


def test_other_headline_numbers_update_the_parent_and_other_params_make_another(folder, table, figure):
    (first,) = runs(folder, "study")
    figure_2 = folder.parent / "curve.png"
    figure_2.write_bytes(PNG)
    track(folder, table, figure_2, parent=study(auc=0.75, figures="g"))
    (same,) = runs(folder, "study")
    assert same.info.run_id == first.info.run_id
    assert same.data.metrics == {"narrow_2/sparse_1/auc_ood": 0.75}
    shown = folder / "artifacts/sae-transfer" / same.info.run_id / "artifacts/figures"
    assert {path.name for path in shown.iterdir()} == {"heatmap.png", "curve.png"}
    track(folder, table, figure, parent=study(seed=1))
    (new,) = runs(folder, "study", superseded="no")
    assert new.info.run_id != first.info.run_id
    assert {run.data.tags["mlflow.parentRunId"] for run in runs(folder)} == {new.info.run_id}


def test_a_deleted_store_is_rebuilt_whole(folder, table, figure):
    n, n_files = len(runs(folder)), len(files(folder / "artifacts"))
    copy = folder.parent / "another"  # MLflow remembers within a process that a store is set up
    folder.rename(copy)
    (copy / "mlflow.db").unlink()
    assert counts(track(copy, table, figure)) == (n, 0, 0)
    assert len(files(copy / "artifacts")) == n_files  # the old runs' artifacts are gone with them


def test_a_run_that_a_person_deleted_comes_back(folder, table, figure):
    with location.opened(PARAMS, folder) as store:
        store.client.delete_run(runs_of(store)[0].info.run_id)
    assert track(folder, table, figure).created == 1


def runs_of(store):
    return store.runs({"kind": "cell"})


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import test_tracking as t
from sae_transfer.tracking.client import Store
calls, function = [], Store.{step}
def killing(*words, **more):
    calls.append(1)
    if len(calls) == {call}:
        {last}
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*words, **more)
Store.{step} = killing
t.track(Path({folder!r}), t.made_up(t.DATASETS, {{"narrow_2": 2}}), Path({figure!r}), name="second")
"""


@pytest.mark.parametrize(
    ("step", "call", "done"),
    [("_log", 1, False), ("_attach_tables", 4, True), ("write_cells", 3, True)],
)
def test_killed_at_any_step_and_run_again_leaves_whole_runs_alone(step, call, done, folder, table, figure):
    """kill -9 of a real process: before the parent has its numbers, and between a cell's artifacts, run and model."""
    last = "function(*words, **more)" if done else ""
    words = {"step": step, "call": call, "last": last, "tests": str(Path(__file__).parent)}
    code = KILLED.format(**words, folder=str(folder), figure=str(figure))
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    cells, parents = runs(folder, study="second"), runs(folder, "study", study="second")
    assert len(cells) < len(runs(folder, study="workspace"))
    assert {run.info.status for run in parents} == ({"RUNNING"} if step == "_log" else {"FINISHED"})
    track(folder, table, figure, name="second")
    cells, parents = runs(folder, study="second"), runs(folder, "study", study="second")
    assert len(cells) == len(runs(folder, study="workspace"))
    assert {run.info.status for run in [*cells, *parents]} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in cells} == {parent.info.run_id for parent in parents}
    assert len(parents) == 1
    assert {str(model.status) for model in models(folder)} == {"READY"}
    assert len(models(folder)) == 2 * len(families(table))
    places = {path.name for path in (folder / "artifacts/sae-transfer").iterdir()}
    assert places == {run.info.run_id for run in [*runs(folder), *runs(folder, "study")]}


# What a person gets wrong: one line each, and what is there stays.


def refused(folder, table, figure, params=PARAMS):
    with pytest.raises(UserError) as told:
        track(folder, table, figure, params=params)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_a_locked_store(folder, table, figure, monkeypatch):
    monkeypatch.setattr(location, "PATIENCE", 0.1)
    with closing(sqlite3.connect(folder / "mlflow.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        said = refused(folder, table, figure)
    assert f"{folder}/mlflow.db: another program writes to it" in said
    assert track(folder, table, figure).created == 0


def test_another_track_that_never_ends(folder, table, figure, monkeypatch):
    monkeypatch.setattr(location, "WAIT", 0.1)
    with FileLock(folder / ".track.lock"):
        assert "mlruns: another process has held it for 0.1 s; end it" in refused(folder, table, figure)


def test_a_damaged_store_and_one_of_another_mlflow(folder, table, figure):
    database = folder / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("update alembic_version set version_num = 'ffffffffffff'")
        connection.commit()
    assert "of another version of MLflow; delete it, `dvc repro` makes it anew" in refused(folder, table, figure)
    database.write_bytes(b"no database" * 100)
    assert "mlflow.db: damaged (file is not a database)" in refused(folder, table, figure)
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


def test_an_experiment_that_was_deleted_in_mlflow(folder, table, figure):
    with location.opened(PARAMS, folder) as store:
        store.client.delete_experiment(store.experiment)
    assert "MLflow experiment sae-transfer was deleted; restore it there" in refused(folder, table, figure)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_a_server_that_is_down_is_one_line_within_seconds_and_shows_no_password(folder, table, figure, monkeypatch):
    down = TrackingParams(uri=f"http://me:secret@127.0.0.1:{free_port()}")
    before = time.monotonic()
    said = refused(folder, table, figure, down)
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
    folder, table, figure, tmp_path, monkeypatch
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
        few = table[table["probe"] == "sparse_1"]
        done = track(here, few, figure, params=remote)
        assert done.created == 4
        assert counts(track(here, few, figure, params=remote)) == (0, 4, 0)
        assert track(here, changed(few), figure, params=remote).superseded == 1
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)  # wins over the params
        assert location.shown(PARAMS) == address
        found = runs(here, params=TrackingParams(experiment="remote"), superseded="no")
        wanted = {cell.name: cell for family in families(changed(few)) for cell in family.cells}
        for run in found:
            assert run.data.params == dict(wanted[run.info.run_name].params)
            assert run.data.metrics == pytest.approx(dict(wanted[run.info.run_name].metrics))
            table_1 = get(address, f"get-artifact?run_uuid={run.info.run_id}&path=all_settings.json")
            assert json.loads(table_1) == json.loads(wanted[run.info.run_name].tables["all_settings.json"])
        assert {path.name for path in here.iterdir()} == {".track.lock"}  # nothing else is kept here
        (started,) = runs(here, "study", params=TrackingParams(experiment="remote"))
        assert get(address, f"get-artifact?run_uuid={started.info.run_id}&path=figures/heatmap.png") == PNG
    assert took < 60
    with pytest.raises(OSError, match="refused"):
        get(address, "health")  # it ended with its block

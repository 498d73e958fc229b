"""Brings the store to say what results say: one parent run a study, below it one run for each (space, A, B)."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from sae_transfer.core.files import write_text
from sae_transfer.tracking import TrackingParams, location, view
from sae_transfer.tracking.contents import Content, digest
from sae_transfer.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run

PARENT = "mlflow.parentRunId"


@dataclass(frozen=True)
class Done:
    """How many runs were written, were there already, and are superseded now; the `ids` of all by what they are."""

    created: int
    kept: int
    superseded: int
    ids: Mapping[str, str]


def project(
    params: TrackingParams,
    name: str,
    study: Content,
    cells: Sequence[Content],
    probes: Content,
    folder: Path | None = None,
) -> Done:
    """Writes what the store lacks, and marks what results no longer say as superseded.

    A study with the same settings is the same study under whatever name: its runs take this name, and an experiment
    that changes nothing but resamples changes intervals in place.

    Args:
        params: which store; `folder` is the project's mlruns/.
        name: the study's name; runs of other studies are left alone.
        study: the parent run; other params make another one.
        cells: the child runs; other numbers make other ones.
        probes: the run that the models come from.

    Raises:
        UserError: the store cannot be reached or written.
    """
    settings, now = digest(dict(study.params)), int(time.time() * 1000)
    wanted = {cell.measured: cell for cell in cells}
    tags = view.tags(name, study, cells)
    everything = digest([name, params.experiment, *(each.fingerprint for each in (study, probes, *cells)), tags])
    database = (folder or location.root() / location.FOLDER) / "mlflow.db"
    stamp = None if location.uri_of(params) else database.with_name(".track.stamp")
    if stamp and stamp.exists() and database.exists() and stamp.read_text() == _left(database, everything):
        return Done(0, len(wanted), 0, {})  # importing MLflow takes longer than all else
    of = {"study": name, "study_model": study.params["model.name"]}
    with location.opened(params, folder) as store:
        store.show(tags)
        parent = write(store, "study", of, {settings: study}, now + len(cells) + 1).ids[settings]
        write(store, "probes", of, {probes.measured: probes}, now, parent=parent)
        done = write(store, "cell", of, wanted, now, parent=parent)
        store.keep_models({run.info.run_id for run in store.runs({"kind": "probes", "superseded": "no"})})
        if stamp:
            write_text(stamp, _left(database, everything))
    return done


def _can_say(run: "Run", content: Content) -> bool:
    """Whether the run can be brought to say this alone: MLflow takes no number back. Models log their own."""
    return bool(content.models) or run.data.metrics.keys() <= content.metrics.keys()


def _left(database: Path, told: str) -> str:
    """What no longer holds once the store says something else or anybody writes to it."""
    return f"{told} {database.stat().st_mtime_ns} {database.stat().st_size}"


def write(
    store: Store,
    kind: str,
    tags: Mapping[str, str],
    wanted: Mapping[str, Content],
    now: int,
    *,
    parent: str = "",
    adopting: bool = True,
) -> Done:
    """The store comes to hold each wanted run once.

    Runs that were cut off are deleted. A wanted run that was superseded once is revived, one with these tags under
    another parent is adopted, and so is one of this parent with other tags. One that says something else by now is
    brought up to date. Whatever else has these tags is superseded.

    Args:
        store: an open one.
        kind: of runs; runs of other kinds are left alone.
        tags: what tells these runs from others of their kind.
        wanted: what they say, by a digest of what never changes in one of them (its params, say).
        now: the time of the last in ms; those before it get later ones, since MLflow shows the latest first.
        parent: run id that they hang under, if any.
        adopting: whether runs with other tags may be among them.
    """
    above = dict(tags) | {"superseded": "no"} | ({PARENT: parent} if parent else {})
    known: dict[str, Run] = {}
    gone = []
    runs = store.runs({"kind": kind} | ({} if adopting else dict(tags)))
    for run in sorted(runs, key=lambda run: run.data.tags.get("superseded", "")):  # of two, what counts
        settings, mine = run.data.tags.get("settings", ""), tags.items() <= run.data.tags.items()
        ours = mine or (settings in wanted and run.data.tags.get(PARENT, "") == parent)
        if run.info.status == "RUNNING":
            if ours:
                store.delete(run)
        elif ours and settings in wanted and settings not in known and _can_say(run, wanted[settings]):
            known[settings] = run
            store.tag(run, **above)
        elif mine:
            gone.append(run)
    fresh = [run for run in gone if run.data.tags.get("superseded") != "yes"]
    for run in fresh:
        store.tag(run, superseded="yes")
    ids = {settings: str(run.info.run_id) for settings, run in known.items()}
    bar = tqdm(wanted.items(), "MLflow", unit="run", leave=False, delay=1, disable=None)
    for i, (settings, content) in enumerate(bar):
        old = known.get(settings)
        if old is None or old.data.tags.get("fingerprint") != content.fingerprint:
            told = above | {"kind": kind, "settings": settings}
            ids[settings] = store.write(content, told, now + len(wanted) - i, old)
    return Done(len(wanted) - len(known), len(known), len(fresh), ids)

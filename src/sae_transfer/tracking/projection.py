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
    params: TrackingParams, name: str, study: Content, cells: Sequence[Content], folder: Path | None = None
) -> Done:
    """Writes what the store lacks, and marks what results no longer say as superseded.

    Args:
        params: which store; `folder` is the project's mlruns/.
        name: the study's name; runs of other studies are left alone.
        study: the parent run; other params make another one.
        cells: the child runs; other numbers make other ones.

    Raises:
        UserError: the store cannot be reached or written.
    """
    settings, now = digest(dict(study.params)), int(time.time() * 1000)
    wanted = {cell.fingerprint: cell for cell in cells}
    everything = digest([name, params.experiment, study.fingerprint, list(wanted), view.tags()])
    database = (folder or location.root() / location.FOLDER) / "mlflow.db"
    stamp = None if location.uri_of(params) else database.with_name(".track.stamp")
    if stamp and stamp.exists() and database.exists() and stamp.read_text() == _left(database, everything):
        return Done(0, len(wanted), 0, {})  # importing MLflow takes longer than all else
    tags = {"study": name, "study_model": study.params["model.name"]}
    with location.opened(params, folder) as store:
        parent = write(store, tags | {"kind": "study"}, {settings: study}, now).ids[settings]
        done = write(store, tags | {"kind": "cell"}, wanted, now, parent=parent)
        if stamp:
            write_text(stamp, _left(database, everything))
    return done


def _left(database: Path, told: str) -> str:
    """What no longer holds once the store says something else or anybody writes to it."""
    return f"{told} {database.stat().st_mtime_ns} {database.stat().st_size}"


def write(store: Store, tags: Mapping[str, str], wanted: Mapping[str, Content], now: int, *, parent: str = "") -> Done:
    """The store comes to hold each wanted run once.

    Runs that were cut off are deleted. A wanted run that was superseded once is revived, one that hangs under another
    parent is adopted, one that says something else by now is brought up to date. Whatever else is there is superseded.

    Args:
        store: an open one.
        tags: what tells these runs from all others.
        wanted: what they say, by a digest of what never changes in one of them (its params, say).
        now: the time of the first in ms.
        parent: run id that they hang under, if any.
    """
    above = {"superseded": "no"} | ({PARENT: parent} if parent else {})
    known: dict[str, Run] = {}
    gone = []
    for run in sorted(store.runs(tags), key=lambda run: run.data.tags.get("superseded", "")):  # of two, what counts
        settings = run.data.tags.get("settings", "")
        if run.info.status == "RUNNING":
            store.delete(run)
        elif settings in wanted and settings not in known:
            known[settings] = run
            store.tag(run, **{name: value for name, value in above.items() if run.data.tags.get(name) != value})
        elif run.data.tags.get("superseded") != "yes":
            gone.append(run)
    for run in gone:
        store.tag(run, superseded="yes")
    ids = {settings: str(run.info.run_id) for settings, run in known.items()}
    bar = tqdm(wanted.items(), "MLflow", unit="run", leave=False, delay=1, disable=None)
    for i, (settings, content) in enumerate(bar):
        old = known.get(settings)
        if old is None or old.data.tags.get("fingerprint") != content.fingerprint:
            ids[settings] = store.write(content, {**tags, **above, "settings": settings}, now + i, old)
    return Done(len(wanted) - len(known), len(known), len(gone), ids)

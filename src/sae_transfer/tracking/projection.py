"""Brings the store to say what results say: one parent run a study, one child a cell, one LoggedModel a probe."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from sae_transfer.tracking.client import Store
from sae_transfer.tracking.contents import Content, Family, digest
from sae_transfer.tracking.plan import Found, Plan, upsert

if TYPE_CHECKING:
    from mlflow.entities import Run

PARENT = "mlflow.parentRunId"


@dataclass(frozen=True)
class Done:
    """How many runs were written, were there already, and are superseded now."""

    created: int
    kept: int
    superseded: int


def project(store: Store, name: str, study: Content, families: Sequence[Family], figures: Sequence[Path]) -> Done:
    """Writes what the store lacks, and marks what results no longer say as superseded.

    Args:
        store: an open one.
        name: the study's name; runs of other studies are left alone.
        study: the parent run.
        families: the child runs.
        figures: PNG files for the parent run.
    """
    tags = {"study": name, "study_model": study.params["model.name"]}
    now = int(time.time() * 1000)
    settings = digest(dict(study.params))  # other params make another parent
    parent = write(store, tags | {"kind": "study"}, {settings: study}, now, figures=figures)[settings]
    return _children(store, tags, parent, families, now)


def write(
    store: Store,
    tags: Mapping[str, str],
    wanted: Mapping[str, Content],
    now: int,
    *,
    parent: str = "",
    figures: Iterable[Path] = (),
) -> dict[str, str]:
    """Runs that may change: those that are there are brought up to date, the others written, the rest superseded.

    Args:
        store: an open one.
        tags: what tells these runs from all others.
        wanted: what they say, by a digest of what never changes in one of them (its params, say).
        now: the time of the first in ms.
        parent: run id that they hang under.
        figures: PNG files for each of them.

    Returns:
        Run ids by that digest.
    """
    runs = {run.info.run_id: run for run in store.runs(tags)}
    plan = upsert(list(wanted), [_found(run, "settings") for run in runs.values()], parent)
    _settle(store, plan, runs, parent)
    above = {PARENT: parent} if parent else {}
    ids = dict(plan.kept)
    for i, (settings, content) in enumerate(wanted.items()):
        if settings not in ids:
            more = above | {"settings": settings, "superseded": "no"}
            ids[settings] = store.write(content, {**tags, **more}, now + i, figures=figures)
        elif runs[ids[settings]].data.tags["fingerprint"] != content.fingerprint:
            store.rewrite(runs[ids[settings]], content, now + i, figures)
    return ids


def _children(store: Store, tags: dict[str, str], parent: str, families: Sequence[Family], now: int) -> Done:
    tags = tags | {"kind": "cell"}
    runs = {run.info.run_id: run for run in store.runs(tags)}
    wanted = [cell.fingerprint for family in families for cell in family.cells]
    plan = upsert(wanted, [_found(run, "fingerprint") for run in runs.values()], parent)
    _settle(store, plan, runs, parent)
    models = _models(store, tags, families)
    started = {fingerprint: now + i for i, fingerprint in enumerate(wanted)}
    with tqdm(total=len(plan.create), desc="MLflow", unit="run", disable=None) as bar:
        for family in reversed(families):  # the Models tab lists the newest first
            new = [cell for cell in family.cells if cell.fingerprint not in plan.kept]
            known = models.get(family.fingerprint)
            model = known or store.start_model(family, tags, parent)
            cells = [(cell, started[cell.fingerprint]) for cell in new]
            store.write_cells(cells, tags | {"superseded": "no", PARENT: parent}, model)
            if known is None:
                for cell in family.cells:
                    if cell.fingerprint in plan.kept:
                        store.retest(runs[plan.kept[cell.fingerprint]], cell, model)
                store.finish_model(model)
            bar.update(len(new))
    return Done(len(plan.create), len(plan.kept), len(plan.supersede))


def _models(store: Store, tags: dict[str, str], families: Sequence[Family]) -> dict[str, str]:
    """The LoggedModels that are whole and wanted, by fingerprint; all others of this study are deleted."""
    wanted, kept = {family.fingerprint for family in families}, {}
    for model in store.models(tags):
        fingerprint = model.tags["fingerprint"]
        if str(model.status) == "READY" and fingerprint in wanted and fingerprint not in kept:
            kept[fingerprint] = str(model.model_id)
        else:
            store.client.delete_logged_model(model.model_id)
    return kept


def _settle(store: Store, plan: Plan, runs: Mapping[str, "Run"], parent: str) -> None:
    for run_id in plan.delete:
        store.delete(runs[run_id])
    for run_id in plan.revive:
        store.client.set_tag(run_id, "superseded", "no")
    for run_id in plan.adopt:
        store.client.set_tag(run_id, PARENT, parent)
    for run_id in plan.supersede:
        store.client.set_tag(run_id, "superseded", "yes")


def _found(run: "Run", key: str) -> Found:
    tags = run.data.tags
    whole = run.info.status != "RUNNING"
    return Found(run.info.run_id, tags.get(key, ""), whole, tags.get("superseded") == "yes", tags.get(PARENT, ""))

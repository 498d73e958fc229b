"""Sweeps in MLflow: a run with the table of winners, below it one run for each (SAE, A) with a table of its trials.

A run for each trial would take as long as the trials do. Written again, it adds nothing.
"""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from sae_transfer.tracking import TrackingParams, location
from sae_transfer.tracking.contents import Content, as_json, digest
from sae_transfer.tracking.projection import write
from sae_transfer.tuning.trials import Sweep, table, winner


def log_sweeps(sweeps: Sequence[Sweep], params: TrackingParams) -> None:
    """Brings MLflow to what the sweeps of one study say; a run that a kill left unfinished is written anew.

    Raises:
        UserError: the store cannot be reached or written. The sweeps themselves lie in studies/.
    """
    done = [sweep for sweep in sweeps if sweep.complete]
    if not done:
        return
    name, now = done[0].study, int(time.time() * 1000)
    # what was searched never changes in a run; what was found may
    wanted = {digest([sweep.name, dict(sweep.params)]): _about(sweep) for sweep in done}
    with location.opened(params) as store:
        whole = {digest(["sweep", name]): _winners(name, done)}
        (parent,) = write(store, "sweep_study", {"sweep": name}, whole, now).ids.values()
        for (settings, content), sweep in zip(wanted.items(), done, strict=True):
            tags = {"sweep": name, "sweep_of": f"{sweep.space}/{sweep.train}"}
            write(store, "sweep", tags, {settings: content}, now, parent=parent, adopting=False)


def _winners(study: str, sweeps: Sequence[Sweep]) -> Content:
    found = table(sweeps)
    means = {f"mean.{name}": found[name].mean() for name in ("auc_ood", "untuned.auc_ood")}
    metrics = {"sweeps": float(len(sweeps))} | {name: value for name, value in means.items() if math.isfinite(value)}
    return Content(f"sweep {study}", {}, metrics, tables={"winners.json": as_json(found)})


def _about(sweep: Sweep) -> Content:
    """The winner's numbers, and those of the untuned probe."""
    best, rows = winner(sweep), table([sweep])
    row: dict[Any, Any] = rows[rows["trial"] == best.number].to_dict("records")[0]
    numbers = {name: value for name, value in row.items() if isinstance(value, int | float) and math.isfinite(value)}
    tests = {name: value for name, value in best.attributes.items() if name.startswith("auc")}
    texts = {name: str(row[name]) for name in ("ranking", "scaling")}
    about = {"study": sweep.study, "sae": sweep.space, "train": sweep.train, **sweep.params}
    return Content(
        f"{sweep.train} \N{MIDDLE DOT} {sweep.space} \N{MIDDLE DOT} sweep {sweep.study}",
        _texts(about),
        {name: round(float(value), 6) for name, value in (numbers | tests).items()},
        texts,
        tables={"trials.json": as_json(_trials(sweep))},
    )


def _trials(sweep: Sweep) -> pd.DataFrame:
    """One row a trial, the winner first."""
    rows = [
        {
            "trial": trial.number,
            **trial.params,
            "cv_log_loss": trial.log_loss,
            "cv_auc": trial.auc,
            "state": trial.state,
        }
        for trial in sorted(sweep.trials, key=lambda trial: (sweep.cost(trial), trial.number))
    ]
    return pd.DataFrame(rows)


def _texts(about: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in about.items()}

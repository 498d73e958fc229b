"""Sweeps in MLflow: one run for each (SAE, A) of a study, its trials as children. Written again, it adds nothing."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from tqdm import tqdm

from sae_transfer.tracking import TrackingParams, location
from sae_transfer.tracking.contents import Content, digest
from sae_transfer.tracking.projection import write
from sae_transfer.tracking.store import Store
from sae_transfer.tuning.trials import Sweep, Trial, winner

STATUS = {"complete": "FINISHED", "fail": "FAILED"}  # a trial in another state still runs


def log_sweeps(sweeps: Iterable[Sweep], params: TrackingParams, *, progress: bool = False) -> None:
    """Brings MLflow to what the sweeps say; a run that a kill left unfinished is written anew.

    Raises:
        UserError: the store cannot be reached or written. The sweeps themselves lie in studies/.
    """
    with location.opened(params) as store:
        for sweep in tqdm(list(sweeps), desc="MLflow", unit="sweeps", disable=not progress):
            _log_sweep(store, sweep)


def _log_sweep(store: Store, sweep: Sweep) -> None:
    """A run of that name that searched another space is superseded, with its trials."""
    tags, now = {"sweep": sweep.name}, int(time.time() * 1000)
    space = digest([sweep.name, dict(sweep.params)])
    parent = write(store, "sweep", tags, {space: _about(sweep)}, now).ids[space]
    # no trial ever changes its number, choice and value, but whether it is chosen
    trials = {
        digest([space, trial.number, trial.state, dict(trial.params), trial.value]): _trial(sweep, trial)
        for trial in sweep.trials
        if trial.state in STATUS
    }
    write(store, "trial", tags, trials, now, parent=parent)


def _about(sweep: Sweep) -> Content:
    values = {"trials": float(len(sweep.complete))} | (_values(winner(sweep)) if sweep.complete else {})
    about = {"study": sweep.study, "sae": sweep.space, "train": sweep.train, **sweep.params}
    return Content(f"sweep {sweep.name}", _texts(about), values)


def _trial(sweep: Sweep, trial: Trial) -> Content:
    about = {"sae": sweep.space, "train": sweep.train, **trial.params}
    chosen = {"chosen": "yes" if "chosen" in trial.attributes else "no"}
    return Content(f"trial {trial.number}", _texts(about), _values(trial), chosen, STATUS[trial.state])


def _values(trial: Trial) -> dict[str, float]:
    """What it reached in cross-validation; of a chosen trial also AUC and its interval on every B's test rows."""
    values = {name: value for name, value in trial.attributes.items() if name.startswith("auc")}
    if trial.value is not None:
        values |= {"cv_auc": trial.value, "n_features": float(trial.params["N"])}
    return values if trial.log_loss is None else values | {"cv_log_loss": trial.log_loss}


def _texts(about: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in about.items()}

"""Sweeps in MLflow: one run for each (SAE, A) of a study, its trials as children. Written again, it adds nothing."""

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from sae_transfer.records import UserError, stable_hash
from sae_transfer.tuning.results import Sweep, Trial, winner

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "sae-transfer"
PARENT, FINGERPRINT, CONTENT = "mlflow.parentRunId", "sae_transfer.fingerprint", "sae_transfer.content"
SWEEP, CHOSEN, SUPERSEDED = "sae_transfer.sweep", "sae_transfer.chosen", "sae_transfer.superseded"


def log_sweeps(sweeps: Iterable[Sweep], *, progress: bool = False) -> None:
    """Brings MLflow to what the sweeps say; a run that a kill left unfinished is written anew.

    Raises:
        UserError: the store cannot be reached or written. The sweeps themselves lie in studies/.
    """
    for name, value in (("MLFLOW_DISABLE_TELEMETRY", "true"), ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")):
        os.environ.setdefault(name, value)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    uri = store_uri()
    try:
        client = _client(uri)
        experiment = _experiment(client, uri)
        for sweep in tqdm(list(sweeps), desc="MLflow", unit="sweeps", disable=not progress):
            _log_sweep(client, experiment, sweep)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"MLflow at {uri}: {cause}; the sweep is whole in studies/, run it again to show it in MLflow"
        ) from None


def store_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or the store in the project's folder."""
    root = Path(os.environ.get("DVC_ROOT", ".")).resolve()
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlruns/mlflow.db'}"


def _client(uri: str) -> "MlflowClient":
    import logging

    from mlflow import MlflowClient

    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri)


def _experiment(client: "MlflowClient", uri: str) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    # A relative location survives a move of the folder; a server of another machine has a place of its own.
    location = f"mlflow-artifacts:/{EXPERIMENT}" if uri.startswith("sqlite:///") else None
    return str(client.create_experiment(EXPERIMENT, artifact_location=location))


def _log_sweep(client: "MlflowClient", experiment: str, sweep: Sweep) -> None:
    parent, content = _parent(client, experiment, sweep), f"{stable_hash(json.dumps(sweep.as_json())):016x}"
    if parent.data.tags.get(CONTENT) == content:
        return
    parent_id = str(parent.info.run_id)
    present = {run.data.tags.get(FINGERPRINT): run for run in _children(client, experiment, parent_id)}
    for trial in sweep.trials:
        if trial.state in ("complete", "fail"):
            run = present.get(_fingerprint(sweep, trial))
            if run is None:
                _log_trial(client, experiment, parent_id, sweep, trial)
            else:
                _update_chosen(client, run, trial)
    _finish(client, parent_id, sweep)
    client.set_tag(parent_id, CONTENT, content)  # last: whatever was interrupted is looked at again


def _fingerprint(sweep: Sweep, trial: Trial | None = None) -> str:
    """Of what never changes again: the search space, or a trial with its number, choice and value."""
    about: list[Any] = [sweep.name, dict(sweep.params)]
    if trial is not None:
        about += [trial.number, trial.state, dict(trial.params), trial.value]
    return f"{stable_hash(json.dumps(about, sort_keys=True)):016x}"


def _parent(client: "MlflowClient", experiment: str, sweep: Sweep) -> "Run":
    """The sweep's run; runs of that name that searched another space are marked as superseded."""
    wanted, found = _fingerprint(sweep), None
    for run in client.search_runs([experiment], f"tags.`{SWEEP}` = '{sweep.name}' and tags.kind = 'sweep'"):
        if run.data.tags.get(FINGERPRINT) == wanted:
            found = run
            if SUPERSEDED in run.data.tags:
                client.delete_tag(run.info.run_id, SUPERSEDED)
        elif SUPERSEDED not in run.data.tags:
            client.set_tag(run.info.run_id, SUPERSEDED, "true")
    if found is None:
        tags = {SWEEP: sweep.name, "kind": "sweep", FINGERPRINT: wanted}
        found = client.create_run(experiment, tags=tags, run_name=f"sweep {sweep.name}")
    about = {"study": sweep.study, "sae": sweep.space, "train": sweep.train, **sweep.params}
    if not found.data.params:
        client.log_batch(found.info.run_id, params=_params(about))
    return found


def _children(client: "MlflowClient", experiment: str, parent: str) -> "list[Run]":
    """The parent's finished children; those that a kill left unfinished are deleted."""
    found, token = [], None
    while True:
        page = client.search_runs([experiment], f"tags.`{PARENT}` = '{parent}'", max_results=1000, page_token=token)
        for run in page:
            if run.info.status == "RUNNING":
                client.delete_run(run.info.run_id)
            else:
                found.append(run)
        token = page.token
        if not token:
            return found


def _log_trial(client: "MlflowClient", experiment: str, parent: str, sweep: Sweep, trial: Trial) -> None:
    tags = {PARENT: parent, SWEEP: sweep.name, "kind": "trial", FINGERPRINT: _fingerprint(sweep, trial)}
    tags[CHOSEN] = str("chosen" in trial.attributes).lower()
    run_id = client.create_run(experiment, tags=tags, run_name=f"trial {trial.number}").info.run_id
    about = {"sae": sweep.space, "train": sweep.train, **trial.params}
    values = {} if trial.value is None else {"cv_auc": trial.value, "n_features": float(trial.params["N"])}
    if trial.log_loss is not None:
        values["cv_log_loss"] = trial.log_loss
    client.log_batch(run_id, metrics=_metrics(values | _areas(trial)), params=_params(about))
    client.set_terminated(run_id, "FINISHED" if trial.state == "complete" else "FAILED")


def _update_chosen(client: "MlflowClient", run: "Run", trial: Trial) -> None:
    """More trials may choose another: what is chosen, and what the chosen are worth on test rows, follows."""
    chosen = str("chosen" in trial.attributes).lower()
    if run.data.tags.get(CHOSEN) != chosen:
        client.set_tag(run.info.run_id, CHOSEN, chosen)
    news = {name: value for name, value in _areas(trial).items() if run.data.metrics.get(name) != value}
    if news:
        client.log_batch(run.info.run_id, metrics=_metrics(news))


def _finish(client: "MlflowClient", parent: str, sweep: Sweep) -> None:
    values: dict[str, float] = {"trials": float(len(sweep.complete))}
    if sweep.complete:
        best = winner(sweep)
        values |= {"cv_auc": float(best.value or 0.0), "n_features": float(best.params["N"]), **_areas(best)}
    run = client.get_run(parent)
    news = {name: value for name, value in values.items() if run.data.metrics.get(name) != value}
    if news:
        client.log_batch(parent, metrics=_metrics(news))
    if run.info.status != "FINISHED":
        client.set_terminated(parent)


def _areas(trial: Trial) -> dict[str, float]:
    """AUC and its interval on every B's test rows, of a chosen trial."""
    return {name: value for name, value in trial.attributes.items() if name.startswith("auc")}


def _params(about: dict[str, Any]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(name, str(value)) for name, value in about.items()]


def _metrics(values: dict[str, float]) -> list[Any]:
    from mlflow.entities import Metric

    return [Metric(name, value, int(time.time() * 1000), 0) for name, value in values.items()]

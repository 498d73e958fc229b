"""The edge to MLflow: one experiment and its runs, through MLflow's public client alone."""

import gc
import json
import logging
import os
import shutil
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sae_transfer.core.errors import UserError
from sae_transfer.core.files import replacing
from sae_transfer.tracking.contents import Content, plain

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

MODEL = {"kind": "probe"}  # the tag of models that are ours
SERVED = "mlflow-artifacts:/"  # a location that names no folder of this machine, so that the store can be moved
PAGE, MOST_PARAMS, MOST_METRICS = 1000, 90, 800  # MLflow gives and takes few more than these a request


class Store:
    """One MLflow experiment, made where it is not there yet: in `folder`, the project's mlruns/, or behind a `uri`.

    Raises:
        UserError: the experiment was deleted in MLflow.
    """

    def __init__(self, experiment: str, folder: Path, uri: str | None = None) -> None:
        self.folder = folder if uri is None else None
        self.client = _client(uri) if uri else _own(folder / "mlflow.db")
        self.experiment = self._experiment(experiment)

    def _experiment(self, name: str) -> str:
        known = self.client.get_experiment_by_name(name)
        if known is None:
            location = f"{SERVED}{plain(name)}" if self.folder else None
            known = self.client.get_experiment(self.client.create_experiment(name, artifact_location=location))
            if left := self._folder(str(known.artifact_location)):  # of a store that a person deleted
                shutil.rmtree(left, ignore_errors=True)
        if known.lifecycle_stage == "deleted":
            raise UserError(f"MLflow experiment {name} was deleted; restore it there or change tracking.experiment")
        return str(known.experiment_id)

    def show(self, tags: Mapping[str, str]) -> None:
        """Sets tags of the experiment, which hold its note and the views that it ships."""
        known = self.client.get_experiment(self.experiment).tags
        for tag, value in tags.items():
            if known.get(tag) != value:
                self.client.set_experiment_tag(self.experiment, tag, value)

    def runs(self, tags: Mapping[str, str]) -> list["Run"]:
        """The runs with these tags."""
        having = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        page = self.client.search_runs([self.experiment], having, max_results=PAGE)
        found = list(page)
        while page.token:
            page = self.client.search_runs([self.experiment], having, max_results=PAGE, page_token=page.token)
            found += page
        return found

    def write(self, content: Content, tags: Mapping[str, str], started: int, run: "Run | None" = None) -> str:
        """Writes a run, of which it gives the id.

        A new one, with more `tags`, is RUNNING until it is whole; a `run` that is there already and says something else
        has no fingerprint until it is up to date. `started` is the time of run and metrics in ms.
        """
        if run is None:
            run = self.client.create_run(self.experiment, started, dict(tags), content.name)
            self._log_models(run, content, started)
        else:
            self.tag(run, fingerprint="")
            self.client.update_run(run.info.run_id, name=content.name)
        self._attach(run, content)
        self._log(run, content, started)
        self.client.set_terminated(run.info.run_id, content.status, end_time=run.info.start_time)
        return str(run.info.run_id)

    def tag(self, run: "Run", **tags: str) -> None:
        """Sets those tags that the run has not."""
        for name, value in tags.items():
            if run.data.tags.get(name) != value:
                self.client.set_tag(run.info.run_id, name, value)

    def keep_models(self, runs: Collection[str]) -> None:
        """Deletes our models but those that came from these runs."""
        page = self.client.search_logged_models([self.experiment], max_results=PAGE)
        found = list(page)
        while page.token:
            page = self.client.search_logged_models([self.experiment], max_results=PAGE, page_token=page.token)
            found += page
        for model in found:
            if model.tags.items() >= MODEL.items() and model.source_run_id not in runs:
                self.client.delete_logged_model(model.model_id)

    def delete(self, run: "Run") -> None:
        """Deletes a run that was cut off while it was written."""
        self.client.delete_run(run.info.run_id)
        if folder := self._folder(str(run.info.artifact_uri)):
            shutil.rmtree(folder.parent, ignore_errors=True)

    def _log(self, run: "Run", content: Content, started: int) -> None:
        """Numbers that the run has already are left out, or MLflow would draw them as a history."""
        from mlflow.entities import Metric, Param, RunTag

        known, tables = run.data.metrics, [{"path": name, "type": "table"} for name in content.tables]
        shown = {"mlflow.loggedArtifacts": json.dumps(tables)} if tables else {}
        if any(name.startswith("images/") for name in content.files):
            shown["mlflow.loggedImages"] = "True"
        told = {**content.tags, **content.origin, **shown, "fingerprint": content.fingerprint}
        params = [Param(name, value) for name, value in content.params.items()]
        metrics = [Metric(name, x, started, 0) for name, x in content.metrics.items() if known.get(name) != x]
        tags = [RunTag(name, value) for name, value in told.items()]
        for i in range(max(len(params) // MOST_PARAMS, len(metrics) // MOST_METRICS), -1, -1):  # the tags at last
            some = params[i * MOST_PARAMS : (i + 1) * MOST_PARAMS]
            few = metrics[i * MOST_METRICS : (i + 1) * MOST_METRICS]
            self.client.log_batch(run.info.run_id, few, some, [] if i else tags)

    def _log_models(self, run: "Run", content: Content, started: int) -> None:
        """The first model is made last: the page Models shows the newest first."""
        if not content.models:
            return
        from mlflow.entities import Dataset, DatasetInput, Metric

        source = {"source_type": "local", "source": "{}"}
        datasets = [Dataset(name, digest, **source) for name, digest in content.datasets.items()]
        self.client.log_inputs(run.info.run_id, [DatasetInput(dataset, []) for dataset in datasets])
        # of one model and metric each needs a time of its own
        times = {name: started + i for i, name in enumerate(content.datasets)}
        metrics = []
        for model in reversed(content.models):
            made = self.client.create_logged_model(
                self.experiment, model.name, run.info.run_id, MODEL, dict(model.params), model.kind
            )
            self.client.finalize_logged_model(made.model_id, "READY")
            metrics += [
                Metric("auc", x, times[test], 0, made.model_id, test, content.datasets[test], run_id=run.info.run_id)
                for test, x in model.auc.items()
            ]
        for i in range(0, len(metrics), MOST_METRICS):
            self.client.log_batch(run.info.run_id, metrics[i : i + MOST_METRICS])

    def _attach(self, run: "Run", content: Content) -> None:
        files = {name: text.encode() for name, text in content.tables.items()} | dict(content.files)
        with ExitStack() as stack:
            own = self._folder(str(run.info.artifact_uri))
            folder = own or Path(stack.enter_context(TemporaryDirectory()))
            for name, data in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
            if own is None and files:
                self.client.log_artifacts(run.info.run_id, str(folder))

    def _folder(self, location: str) -> Path | None:
        """Where the artifacts of a location lie, None where only a server can tell."""
        if self.folder is None or not location.startswith(SERVED):
            return None
        return self.folder / "artifacts" / location.removeprefix(SERVED).lstrip("/")


def _own(database: Path) -> "MlflowClient":
    """The project's own store. It is made under another name: a kill leaves half of one, which is no store."""
    if not database.exists():
        for left in database.parent.glob(f".{database.name}.*"):
            left.unlink()
        with replacing(database) as fresh:
            _client(f"sqlite:///{fresh}")
    return _client(f"sqlite:///{database}")


def _client(uri: str) -> "MlflowClient":
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # by default a dead server is waited for for minutes
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines a run
    for library in ("mlflow", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)
    gc.disable()  # a second: MLflow's import makes a million objects, and all of them stay
    try:
        from mlflow.tracking import MlflowClient
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        if uri.startswith("sqlite") and not event.contains(Engine, "connect", _unsynchronised):
            event.listen(Engine, "connect", _unsynchronised)
        return MlflowClient(uri)
    finally:
        gc.freeze()
        gc.enable()


def _unsynchronised(connection: Any, _: Any) -> None:
    """Lets the system choose when to write to the disk: faster, whole after a kill, and results can rebuild it."""
    connection.execute("PRAGMA synchronous = OFF")

"""The edge to MLflow: one experiment, its runs and its LoggedModels."""

import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_transfer.records import UserError
from sae_transfer.store import replacing, write_text
from sae_transfer.tracking import bulk, view
from sae_transfer.tracking.contents import Content, Family, plain

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, LoggedModel, Metric, Run
    from mlflow.tracking import MlflowClient

SERVED = "mlflow-artifacts:/"  # a location that names no folder of this machine, so that the store can be moved
MODEL_METRICS = ("auc",)  # what the Models tab shows for every B
MOST_PARAMS, MOST_METRICS = 100, 1000  # MLflow takes no more a request


class Store:
    """One MLflow experiment: in the project's own store, `mlruns/mlflow.db` and `mlruns/artifacts/`, or elsewhere.

    Args:
        experiment: its name; it is made where it is not there yet.
        folder: the project's mlruns/.
        uri: a server, in place of the project's own store.

    Raises:
        UserError: the experiment was deleted in MLflow.
    """

    def __init__(self, experiment: str, folder: Path, uri: str | None = None) -> None:
        self.folder = folder if uri is None else None
        self.database = folder / "mlflow.db"
        self.client = _client(uri or f"sqlite:///{self.database}")
        self.experiment, self.location = self._experiment(experiment)
        self._sweep()

    def _experiment(self, name: str) -> tuple[str, str]:
        known = self.client.get_experiment_by_name(name)
        if known is None:
            location = f"{SERVED}{plain(name)}" if self.folder else None
            known = self.client.get_experiment(self.client.create_experiment(name, artifact_location=location))
        if known.lifecycle_stage == "deleted":
            raise UserError(f"MLflow experiment {name} was deleted; restore it there or change tracking.experiment")
        for tag, value in view.tags().items():
            if known.tags.get(tag) != value:
                self.client.set_experiment_tag(known.experiment_id, tag, value)
        return str(known.experiment_id), str(known.artifact_location)

    def _sweep(self) -> None:
        """Deletes artifacts of runs that the store lacks: a track was killed, or the store was deleted."""
        folder = self._folder(self.location)
        if folder is None or not folder.is_dir():
            return
        known = bulk.run_ids(self.database)
        for path in folder.iterdir():
            if re.fullmatch(r"[0-9a-f]{32}", path.name) and path.name not in known:
                shutil.rmtree(path, ignore_errors=True)

    def runs(self, tags: Mapping[str, str]) -> list["Run"]:
        """The runs with these tags."""
        page = self.client.search_runs([self.experiment], _having(tags), max_results=1000)
        found = list(page)
        while page.token:
            page = self.client.search_runs([self.experiment], _having(tags), max_results=1000, page_token=page.token)
            found += page
        return found

    def models(self, tags: Mapping[str, str]) -> list["LoggedModel"]:
        """The LoggedModels with these tags."""
        page = self.client.search_logged_models([self.experiment], _having(tags), max_results=100)
        found = list(page)
        while page.token:
            wanted = _having(tags)
            page = self.client.search_logged_models([self.experiment], wanted, max_results=100, page_token=page.token)
            found += page
        return found

    def write(
        self,
        content: Content,
        tags: Mapping[str, str],
        started: int,
        *,
        model: str = "",
        figures: Iterable[Path] = (),
    ) -> str:
        """Writes a run, of which it gives the id; it is RUNNING until it is whole.

        Args:
            content: what it says.
            tags: what else it is tagged with.
            started: its time in ms, also that of its metrics; the view lists runs by it.
            model: id of the LoggedModel that its metrics belong to.
            figures: files to attach.
        """
        run = self.client.create_run(self.experiment, started, told(content, tags), content.name)
        run_id = str(run.info.run_id)
        self._attach_tables(run_id, str(run.info.artifact_uri), content)
        self._attach_figures(run_id, str(run.info.artifact_uri), figures)
        self._log(run_id, content.params, _metrics(content, started, model))
        self._inputs(run_id, content, model)
        self.client.set_terminated(run_id, content.status, end_time=started)
        return run_id

    def write_cells(self, cells: Sequence[tuple[Content, int]], tags: Mapping[str, str], model: str) -> None:
        """Writes the runs of a LoggedModel, each with its time in ms."""
        if not cells or self.folder is None:
            for content, started in cells:
                self.write(content, tags, started, model=model)
            return
        entries = []
        for content, started in cells:
            run_id = uuid.uuid4().hex
            place = f"{self.location.rstrip('/')}/{run_id}/artifacts"
            self._attach_tables(run_id, place, content)
            entries.append(
                bulk.Entry(
                    run_id,
                    content.name,
                    place,
                    started,
                    told(content, tags),
                    dict(content.params),
                    _metrics(content, started, model),
                    _dataset_inputs(content),
                    model,
                )
            )
        bulk.write(self.database, self.experiment, entries)

    def rewrite(self, run: "Run", content: Content, started: int, figures: Iterable[Path]) -> None:
        """Brings a run with the same params up to date; it has no fingerprint until that is done."""
        run_id = str(run.info.run_id)
        self.client.set_tag(run_id, "fingerprint", "")
        self._attach_tables(run_id, str(run.info.artifact_uri), content)
        self._attach_figures(run_id, str(run.info.artifact_uri), figures)
        metrics = _metrics(content, started, "")
        self._log(run_id, {}, [metric for metric in metrics if run.data.metrics.get(metric.key) != metric.value])
        for name, value in told(content, {}).items():  # the fingerprint is the last
            self.client.set_tag(run_id, name, value)

    def retest(self, run: "Run", content: Content, model: str) -> None:
        """Gives the metrics of a run that is there already to a new LoggedModel."""
        run_id = str(run.info.run_id)
        metrics = _metrics(content, run.info.start_time, model)
        self._log(run_id, {}, [metric for metric in metrics if metric.model_id])
        self._inputs(run_id, content, model)

    def _log(self, run_id: str, params: Mapping[str, str], metrics: Sequence["Metric"]) -> None:
        from mlflow.entities import Param

        listed = [Param(name, value) for name, value in params.items()]
        few = MOST_METRICS - MOST_PARAMS
        for i in range(max(-(-len(listed) // MOST_PARAMS), -(-len(metrics) // few))):
            self.client.log_batch(
                run_id, metrics[i * few : (i + 1) * few], listed[i * MOST_PARAMS : (i + 1) * MOST_PARAMS]
            )

    def _inputs(self, run_id: str, content: Content, model: str) -> None:
        from mlflow.entities import LoggedModelInput

        inputs = _dataset_inputs(content)
        if inputs or model:
            self.client.log_inputs(run_id, inputs, [LoggedModelInput(model)] if model else None)

    def _attach_tables(self, run_id: str, location: str, content: Content) -> None:
        folder = self._folder(location)
        for name, text in content.tables.items():
            if folder is None:
                self.client.log_text(run_id, text, name)
            else:
                write_text(folder / name, text)

    def _attach_figures(self, run_id: str, location: str, files: Iterable[Path]) -> None:
        folder = self._folder(location)
        for file in files:
            if folder is None:
                self.client.log_artifact(run_id, str(file), "figures")
                continue
            with replacing(folder / "figures" / file.name) as path:
                shutil.copyfile(file, path)

    def _folder(self, location: str) -> Path | None:
        """Where the artifacts of a location lie, None where only a server can tell."""
        if self.folder is None or not location.startswith(SERVED):
            return None
        return self.folder / "artifacts" / location.removeprefix(SERVED).lstrip("/")

    def delete(self, run: "Run") -> None:
        """Deletes a run that was cut off while it was written."""
        self.client.delete_run(run.info.run_id)
        folder = self._folder(str(run.info.artifact_uri))
        if folder is not None:
            shutil.rmtree(folder.parent, ignore_errors=True)

    def start_model(self, family: Family, tags: Mapping[str, str], source_run: str) -> str:
        """The id of a new LoggedModel; it is PENDING until `finish_model`."""
        made = self.client.create_logged_model(
            self.experiment,
            name=family.name,
            source_run_id=source_run,
            params=dict(family.params),
            tags=dict(tags) | {"fingerprint": family.fingerprint},
            model_type=family.params["probe"],
        )
        return str(made.model_id)

    def finish_model(self, model: str) -> None:
        self.client.finalize_logged_model(model, "READY")


def told(content: Content, tags: Mapping[str, str]) -> dict[str, str]:
    """All tags of a run."""
    tables = [{"path": name, "type": "table"} for name in content.tables]
    shown = {"mlflow.loggedArtifacts": json.dumps(tables)} if tables else {}
    return {**content.tags, **content.origin, **tags, **shown, "fingerprint": content.fingerprint}


def _metrics(content: Content, started: int, model: str) -> list["Metric"]:
    from mlflow.entities import Metric

    tested = content.datasets[-1] if content.datasets else None
    return [
        Metric(name, value, started, 0, model_id=model, dataset_name=tested.name, dataset_digest=tested.digest)
        if model and tested and name in MODEL_METRICS
        else Metric(name, value, started, 0)
        for name, value in content.metrics.items()
    ]


def _dataset_inputs(content: Content) -> list["DatasetInput"]:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return [
        DatasetInput(
            Dataset(each.name, each.digest, "local", json.dumps({"uri": each.source})),
            [InputTag("mlflow.data.context", each.context)],
        )
        for each in content.datasets
    ]


def _having(tags: Mapping[str, str]) -> str:
    return " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())


def _client(uri: str) -> "MlflowClient":
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # by default a dead server is waited for for minutes
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines a run
    from mlflow.tracking import MlflowClient
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    for library in ("mlflow", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)
    if uri.startswith("sqlite") and not event.contains(Engine, "connect", _unsynchronised):
        event.listen(Engine, "connect", _unsynchronised)
    return MlflowClient(uri)


def _unsynchronised(connection: Any, _: Any) -> None:
    """Lets the system choose when to write to the disk: faster, whole after a kill, and results can rebuild it."""
    connection.execute("PRAGMA synchronous = OFF")

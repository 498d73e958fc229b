"""Which store runs go to, opened for one process at a time; what is wrong with it in one line."""

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from sae_transfer.core.errors import UserError
from sae_transfer.tracking import TrackingParams
from sae_transfer.tracking.store import Store

FOLDER = Path("mlruns")
WAIT = 600  # seconds for another track or sweep to end
PATIENCE = 5  # seconds for another program to finish its writing
AGAIN, ANEW = "run the same command again", "delete it, `dvc repro` makes it anew from results/"
REMEDIES = {  # by what SQLite or MLflow says
    "locked": f"another program writes to it; close that and {AGAIN}",
    "readonly|unable to open": f"read-only; make it and its folder writable and {AGAIN}",
    "out-of-date database schema|Can't locate revision": f"of another version of MLflow; {ANEW}",
    "not a database|malformed": f"damaged; {ANEW}",
    "": f"results/ and studies/ are whole, {AGAIN}",
}


def root() -> Path:
    """The project's root; DVC names it where a stage runs in an experiment's temporary workspace."""
    return Path(os.environ.get("DVC_ROOT", "."))


def uri_of(params: TrackingParams) -> str | None:
    """The server that runs go to: MLFLOW_TRACKING_URI, else `tracking.uri`; None for the project's own store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or params.uri


def shown(params: TrackingParams) -> str:
    """Where runs go, as it may be printed."""
    uri = uri_of(params)
    return _without_password(uri) if uri else str(root() / FOLDER / "mlflow.db")


@contextmanager
def opened(params: TrackingParams, folder: Path | None = None) -> Iterator[Store]:
    """The store, made where it is not there yet, for one process at a time.

    Raises:
        UserError: it is locked, read-only, damaged, of another version of MLflow, or the server does not answer.
    """
    from filelock import FileLock, Timeout

    folder = (folder or root() / FOLDER).resolve()
    uri = uri_of(params)
    where = _without_password(uri) if uri else str(folder / "mlflow.db")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".track.lock", timeout=WAIT):
            if uri is None or uri.startswith("sqlite:///"):
                check_file(Path((uri or where).removeprefix("sqlite:///")))
            elif uri.startswith("http"):
                _check_server(uri, where)
            with _failures_told(where):
                yield Store(params.experiment, folder, uri)
    except Timeout:
        raise UserError(f"{folder}: another process has held it for {WAIT} s; end it and {AGAIN}") from None
    except PermissionError as error:
        raise UserError(f"{error.filename or folder}: read-only; make it writable and {AGAIN}") from None


def check_file(path: Path) -> None:
    """Asks SQLite itself whether the store can be written, since MLflow's own answer is long and slow."""
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path, timeout=PATIENCE)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.DatabaseError as error:
        raise _told(str(path), error) from None


def _check_server(uri: str, where: str) -> None:
    """A first question with a short deadline: MLflow's client would ask again for minutes."""
    import requests

    try:
        requests.get(f"{uri.rstrip('/')}/health", timeout=10)
    except requests.RequestException as error:
        raise UserError(
            f"MLflow server {where}: no answer ({type(error).__name__}); results/ and studies/ are whole: start the "
            f"server or correct tracking.uri, and {AGAIN}"
        ) from None


@contextmanager
def _failures_told(where: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        raise _told(where, error) from error


def _told(where: str, error: Exception) -> UserError:
    cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
    remedy = next(remedy for words, remedy in REMEDIES.items() if re.search(words, cause))
    return UserError(f"{where}: {remedy} ({cause[:300]})")


def _without_password(uri: str) -> str:
    parts = urlsplit(uri)
    return uri if parts.password is None else uri.replace(f":{parts.password}@", ":***@")

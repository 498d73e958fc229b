"""MLflow's UI on this machine: one worker, no telemetry, 127.0.0.1 alone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

from sae_transfer.core.errors import UserError
from sae_transfer.tracking import location, view

HOST = "127.0.0.1"
START = 120  # seconds that a start may take on a busy machine
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@contextmanager
def serving(folder: Path, port: int) -> Iterator[str]:
    """A server for the store in `folder` while the block runs; gives its address.

    Raises:
        UserError: there is no store yet, it is damaged, the port is taken, or the server does not start.
    """
    folder = folder.resolve()
    database = folder / "mlflow.db"
    if not database.exists():
        raise UserError(f"{database}: not found; `dvc repro` makes it")
    location.check_file(database)
    _check_port(port)
    command = [sys.executable, *f"-m mlflow server --host {HOST} --port {port} --workers 1".split()]
    command += ["--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", str(folder / "artifacts")]
    log = folder / "server.log"
    with log.open("w") as out:
        # a session of its own, since the server starts a process that must end with it
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=os.environ | QUIET, start_new_session=True, cwd=folder
        )
    try:
        yield _started(process, f"http://{HOST}:{port}", log)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def _check_port(port: int) -> None:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"port {port}: cannot be used ({error.strerror}); choose another: `sae-transfer ui --port {port + 1}`"
            ) from None


def _started(process: subprocess.Popen[bytes], address: str, log: Path) -> str:
    deadline = time.monotonic() + START
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urlopen(f"{address}/health", timeout=5):
                return address
        except (URLError, OSError):
            time.sleep(0.1)
    raise UserError(f"MLflow's server did not start; {log} says why")


def shipped_view(address: str, experiment: str, name: str = view.TABLE_VIEW) -> str:
    """The link to a view of the experiment, by default the transfer table; to the server where there is none."""
    asked = f"{address}/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(experiment)}"
    try:
        with urlopen(asked, timeout=30) as answer:
            return view.link(address, json.load(answer)["experiment"]["experiment_id"], name)
    except (URLError, OSError, KeyError, ValueError):
        return address

"""Where DVC comes in by its Python API: tracking files, and results of another revision. The only home of dvc."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from sae_transfer.core import files, paths
from sae_transfer.core.errors import UserError
from sae_transfer.results import result_tables
from sae_transfer.results.comparison import Compared
from sae_transfer.results.transfer_table import TRANSFER

TABLE = paths.RESULTS / "transfer.csv"

SHIPPED = "demo"  # the remote inside the repository: for what data.dvc and models.dvc name, nothing else


def track(path: Path) -> Path:
    """Puts a file or folder under DVC, in a .dvc file of its own beside it that names no remote.

    Raises:
        UserError: not inside a DVC project, or DVC refuses (its reason).
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            repo.scm_context.quiet = True  # the caller says what to commit
            repo.add([str(path)])
    except DvcException as error:
        raise UserError(f"{path}: DVC cannot track it ({str(error).strip().splitlines()[0]})") from None
    return path.with_name(f"{path.name}.dvc")


def default_remote() -> tuple[str, str] | None:
    """(name, address) of the remote that `dvc push` uses, None where none is set.

    Raises:
        UserError: not inside a DVC project.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            name = repo.config["core"].get("remote")
            return (name, str(repo.config["remote"].get(name, {}).get("url", "?"))) if name else None
    except DvcException as error:
        raise UserError(f"DVC: {str(error).strip().splitlines()[0]}; run this from the project's root") from None


@contextmanager
def opened(name: str) -> Iterator[Compared]:
    """A study's results by name: a folder with results, a git revision, or a DVC experiment.

    A folder is a project's root, or holds a transfer.csv; what a revision or an experiment produced comes from DVC's
    cache, or from the default remote.

    Raises:
        UserError: no such folder, revision or experiment, or its results are nowhere.
    """
    folder = Path(name)
    if folder.is_dir():
        yield _compared(name, folder)
        return
    if folder.suffix or folder.is_file():
        raise UserError(f"{name}: no such folder; name a folder with results, a git revision or a DVC experiment")
    with tempfile.TemporaryDirectory() as temporary:
        _fetch(name, Path(temporary))
        yield _compared(name, Path(temporary))


def _compared(name: str, folder: Path) -> Compared:
    table, scores = folder / TABLE, folder / paths.TRANSFER
    if not table.exists():
        table, scores = folder / TABLE.name, folder / paths.TRANSFER.name
    if not table.exists():
        raise UserError(f"{name}: no {TABLE} in this folder; run `dvc repro` there, or name another")
    rows = result_tables.read(table, TRANSFER, name)

    def of_space(space: str) -> pd.DataFrame | None:
        parts = sorted((scores / space).glob("*.scores.parquet"))
        return pd.concat(map(files.read_table, parts), ignore_index=True) if parts else None

    return Compared("here" if name == "." else name, rows, of_space)


def _listed(found: Any, folder: Path) -> list[str]:
    """The files of a folder; none where it left DVC's cache."""
    from dvc_data.index import DataIndexDirError

    try:
        return list(found.find(str(folder)))
    except DataIndexDirError:
        return []


def _fetch(revision: str, folder: Path) -> None:
    """The transfer table and, where they can be had, the scores of a revision."""
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    try:
        found = DVCFileSystem(repo=".", rev=revision)
        scores = [path for path in _listed(found, paths.TRANSFER) if path.endswith(".scores.parquet")]
    except (SCMError, DvcException, FileNotFoundError) as error:
        raise UserError(
            f"{revision}: no such folder, git revision or DVC experiment ({error}); `dvc exp show` lists experiments"
        ) from None
    for path in (str(TABLE), *scores):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        try:
            found.get_file(path, str(folder / path))
        except (OSError, DvcException):
            if path == str(TABLE):
                raise UserError(
                    f"{revision}: {TABLE} is not in DVC's cache; check that revision out and run `dvc repro`, "
                    "or `dvc pull` it"
                ) from None
            shutil.rmtree(folder / paths.TRANSFER, ignore_errors=True)

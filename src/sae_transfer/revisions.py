"""Results of another git revision or DVC experiment, as they were, without checking it out. The only home of dvc."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from sae_transfer import paths, result_files, store
from sae_transfer.comparison import Study
from sae_transfer.records import UserError

TABLE = paths.RESULTS / "transfer.csv"


@contextmanager
def opened(name: str) -> Iterator[Study]:
    """A study by name: a folder with results, a git revision, or a DVC experiment.

    A folder is a project's root, or holds a transfer.csv; what a revision or an experiment produced comes from DVC's
    cache, or from the default remote.

    Raises:
        UserError: no such folder, revision or experiment, or its results are nowhere.
    """
    folder = Path(name)
    if folder.is_dir():
        yield _study(name, folder)
        return
    if folder.suffix or folder.is_file():
        raise UserError(f"{name}: no such folder; name a folder with results, a git revision or a DVC experiment")
    with tempfile.TemporaryDirectory() as temporary:
        _fetch(name, Path(temporary))
        yield _study(name, Path(temporary))


def _study(name: str, folder: Path) -> Study:
    table, scores = folder / TABLE, folder / paths.SCORES
    if not table.exists():
        table, scores = folder / TABLE.name, folder / paths.SCORES.name
    if not table.exists():
        raise UserError(f"{name}: no {TABLE} in this folder; run `dvc repro` there, or name another")
    read = result_files.read_transfer(table, name)

    def of_space(space: str) -> pd.DataFrame | None:
        path = scores / f"{space}.parquet"
        return store.read_table(path) if path.exists() else None

    return Study("here" if name == "." else name, read, of_space)


def _fetch(revision: str, folder: Path) -> None:
    """The transfer table and, where they can be had, the scores of a revision."""
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    try:
        files = DVCFileSystem(repo=".", rev=revision)
        wanted = [str(TABLE), *files.find(str(paths.SCORES))]
    except (SCMError, DvcException, FileNotFoundError) as error:
        raise UserError(
            f"{revision}: no such folder, git revision or DVC experiment ({error}); `dvc exp show` lists experiments"
        ) from None
    for path in wanted:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        try:
            files.get_file(path, str(folder / path))
        except (OSError, DvcException):
            if path == str(TABLE):
                raise UserError(
                    f"{revision}: {TABLE} is not in DVC's cache; check that revision out and run `dvc repro`, "
                    "or `dvc pull` it"
                ) from None
            shutil.rmtree(folder / paths.SCORES, ignore_errors=True)

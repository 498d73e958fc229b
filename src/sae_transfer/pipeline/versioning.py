"""Where DVC comes in by its Python API: tracking files, and results of another revision. The only home of dvc."""

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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


def unkept(inputs: Iterable[Path]) -> list[str]:
    """What is wrong with how these files and folders are kept, in sentences: what others would lack, or get as it was.

    DVC's index is asked, not whether a .dvc file lies there: DVC passes over those in folders that git ignores.

    Raises:
        UserError: DVC cannot read its files here (its reason).
    """
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo

    here = [path for path in dict.fromkeys(inputs) if path.exists()]
    try:
        with Repo() as repo:
            outs = {Path(out.fs_path): Path(out.stage.path) for out in repo.index.outs}
            kept = _Kept(Path(repo.root_dir), outs, _in_git(Path(repo.root_dir)), set())
            trackers = {str(owner) for path in here for owner in kept.owners(path) if owner and owner.suffix == ".dvc"}
            kept.changed.update(_changed(repo.status(targets=sorted(trackers)) if trackers else {}, kept.root))
    except NotDvcRepoError:
        return []
    except DvcException as error:
        raise UserError(f"DVC: {str(error).strip().splitlines()[0]}; correct it, or restore it with git") from None
    return list(dict.fromkeys(filter(None, map(kept.fault, here))))


def _in_git(root: Path) -> set[Path] | None:
    """The files that git has or is about to; None outside of git."""
    try:
        command = ["git", "-C", str(root), "ls-files", "-z"]
        found = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return {root / os.fsdecode(name) for name in found.split(b"\0") if name}


def _changed(status: Mapping[str, Any], root: Path) -> set[Path]:
    """The outs that are no longer what their .dvc files say."""
    told = [each["changed outs"] for stage in status.values() for each in stage if "changed outs" in each]
    return {root / out for outs in told for out, how in outs.items() if how == "modified"}


@dataclass(frozen=True)
class _Kept:
    """What DVC's index and git hold: outs with the files that name them, git's files, outs that have changed since."""

    root: Path
    outs: Mapping[Path, Path]
    in_git: set[Path] | None
    changed: set[Path]

    def files(self, path: Path) -> list[Path]:
        here = Path(os.path.normpath(self.root / path))
        return [here] if here.is_file() else [each for each in here.rglob("*") if each.is_file()]

    def out(self, file: Path) -> Path | None:
        return next((out for out in self.outs if file.is_relative_to(out)), None)

    def owners(self, path: Path) -> list[Path | None]:
        return [None if (out := self.out(file)) is None else self.outs[out] for file in self.files(path)]

    def fault(self, path: Path) -> str | None:
        here, add = Path(os.path.normpath(self.root / path)), f"`dvc add {shlex.quote(str(path))}`"
        if not here.is_relative_to(self.root):
            return f"{path} lies outside the project: a change of it is seen, but DVC does not keep it for others"
        files, owners = self.files(path), self.owners(path)
        lost = "`dvc push`, clones and `dvc exp run --temp` lack it"
        if any(owner is None and file not in (self.in_git or ()) for file, owner in zip(files, owners, strict=True)):
            hidden = [up.with_name(f"{up.name}.dvc") for up in (here, *here.parents) if up.name]
            if found := next((file for file in hidden if file.is_file()), None):
                about = found.relative_to(self.root)
                return f"{path} is hidden from DVC, since git ignores the folder of {about}: {lost}; correct .gitignore"
            return f"{path} is in neither DVC nor git: {lost}; run {add}"
        if changed := [out for out in self.changed if any(file.is_relative_to(out) for file in files)]:
            out = changed[0].relative_to(self.root)
            return f"{out} has changed since `dvc add`: others get the old one; `dvc add` it again"
        if self.in_git is not None and (new := sorted({owner for owner in owners if owner} - self.in_git)):
            return f"{new[0].relative_to(self.root)} is not in git: clones and experiments lack {path}; `git add` it"
        return None


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

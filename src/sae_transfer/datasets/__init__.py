"""Datasets: each loader turns one file into typed rows; `load` finds a dataset's files and checks what they hold."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import model_validator

from sae_transfer.config import Params
from sae_transfer.datasets import boolq, idk, sources, squad, table
from sae_transfer.datasets.table import Columns
from sae_transfer.records import ANSWERABLE, UNANSWERABLE, Row, UserError, closest
from sae_transfer.splits import Questions, Quota
from sae_transfer.store import missing

__all__ = ["LOADERS", "Columns", "DatasetParams", "Quota", "load"]


class DatasetParams(Params):
    """One dataset of the study: where its files are, how many rows to take, under which templates.

    `path` is one file or folder, so that DVC can depend on it. `train_files` and `test_files` name files inside the
    folder; with `test_files`, train and test rows come from their own files, else all rows are one pool.
    `questions` says what a repeated question means (see `splits`); by default, what the loader's dataset needs.
    """

    loader: str
    path: Path
    train_files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()
    n_train: Quota
    n_test: Quota
    template: str = "default"
    variations: tuple[str, ...] = ()
    questions: Questions | None = None
    columns: Columns = Columns()

    @model_validator(mode="after")
    def _consistent(self) -> "DatasetParams":
        if self.test_files and not self.train_files:
            raise ValueError("test_files needs train_files: which files are to train on?")
        if twice := set(self.train_files) & set(self.test_files):
            raise ValueError(f"{min(twice)} is both in train_files and in test_files")
        if "columns" in self.model_fields_set and self.loader != "table":
            raise ValueError(f"columns are for the loader table, not for {self.loader}")
        return self

    @property
    def question_rule(self) -> Questions:
        return self.questions or QUESTION_RULES.get(self.loader, "repeat")


LOADERS: dict[str, Callable[[Path, DatasetParams], list[Row]]] = {
    "squad": lambda path, _: squad.load(path),
    "idk": lambda path, _: idk.load(path),
    "boolq": lambda path, _: boolq.load(path),
    "table": lambda path, params: table.load(path, params.columns),
}
QUESTION_RULES: dict[str, Questions] = {"squad": "one_side", "idk": "one_side", "boolq": "once"}


def load(name: str, params: DatasetParams) -> tuple[list[Row], list[Row] | None]:
    """The rows of dataset `name`: (pool, None), or (train rows, test rows) if it has files to test on.

    Raises:
        UserError: an unknown loader (with the closest names), a missing file (what brings it), a file that its loader
            cannot read (file and line), one class, an empty question, duplicate ids, or a label neither 0 nor 1.
    """
    if params.loader not in LOADERS:
        raise UserError(f"dataset {name}: loader '{params.loader}' is unknown; {closest(params.loader, LOADERS)}")
    rows = _load_files(name, params, params.train_files)
    test_rows = _load_files(name, params, params.test_files) if params.test_files else None
    _check_rows(name, [*rows, *(test_rows or ())])
    for part in (rows, test_rows):
        if part is not None:
            _check_classes(name, part)
    return rows, test_rows


def _load_files(name: str, params: DatasetParams, files: Sequence[str]) -> list[Row]:
    paths = [params.path / file for file in files] or _files(params.path)
    for path in paths:
        if not path.is_file():
            raise _not_found(name, path)
    return [row for path in paths for row in LOADERS[params.loader](path, params)]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return [file for file in sorted(path.iterdir()) if file.is_file() and not _is_about(file.name)]


def _is_about(file: str) -> bool:
    return file.startswith((".", "LICENSE", "README")) or file.endswith(".md")


def _not_found(name: str, path: Path) -> UserError:
    if remedy := sources.remedy(path):
        return UserError(f"dataset {name}: {path}: not found; {remedy}")
    if path.parts[:1] == ("data",) and path.parts[:2] != ("data", "external"):
        return UserError(f"dataset {name}: {missing(path)}")
    return UserError(f"dataset {name}: {path}: not found; correct its path, train_files or test_files in params.yaml")


def _check_rows(name: str, rows: Sequence[Row]) -> None:
    seen = set[str]()
    for row in rows:
        if not row.question.strip():
            raise UserError(f"dataset {name}: row {row.id} has an empty question; give it a text or remove it")
        if row.label not in (ANSWERABLE, UNANSWERABLE):
            raise UserError(f"dataset {name}: row {row.id} has the label {row.label!r}, neither 0 nor 1")
        if row.id in seen:
            raise UserError(f"dataset {name}: the id {row.id} occurs twice; ids are unique within a dataset")
        seen.add(row.id)


def _check_classes(name: str, rows: Sequence[Row]) -> None:
    found = Counter(row.label for row in rows)
    if len(found) < 2:
        files = ", ".join(sorted({row.source for row in rows})) or "its files"
        raise UserError(
            f"dataset {name}: {files} hold {found[ANSWERABLE]} answerable and {found[UNANSWERABLE]} unanswerable rows;"
            " a probe needs both classes"
        )

"""Datasets: each loader turns one file into typed rows; `load` finds a dataset's files and checks what they hold."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import PositiveInt, field_validator, model_validator

from sae_transfer.core.errors import UserError, closest
from sae_transfer.core.files import missing
from sae_transfer.core.params_section import ParamsSection, Place, is_place
from sae_transfer.data import sources, splits
from sae_transfer.data.example import ANSWERABLE, UNANSWERABLE, Example
from sae_transfer.data.loaders import boolq, idk, squad, table
from sae_transfer.data.loaders.table import Columns
from sae_transfer.data.loaders.text_files import check_readable
from sae_transfer.data.splits import Questions, Quota

__all__ = ["LOADERS", "Columns", "DatasetParams", "Quota", "load"]


class DatasetParams(ParamsSection):
    """One dataset of the study: where its files are, how many rows to take, under which templates.

    `path` is one file or folder, so that DVC can depend on it. `train_files` and `test_files` name files inside the
    folder; with `test_files`, train and test rows come from their own files, else all rows are one pool.
    `questions` says what a repeated question means (see `splits`); by default, what the loader's dataset needs.
    `activations` is a file with the residual streams of the rows, in their order, which another tool made (see
    `artifacts.imported`): then no model runs on them.
    `max_per_group` caps the rows of one group, such as a passage; by default all are used.
    """

    loader: str
    path: Place
    train_files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()
    n_train: Quota
    n_test: Quota
    template: str = "default"
    variations: tuple[str, ...] = ()
    questions: Questions | None = None
    max_per_group: PositiveInt | None = None
    columns: Columns = Columns()
    activations: Path | None = None

    @field_validator("loader")
    @classmethod
    def _is_known(cls, loader: str) -> str:
        if loader not in LOADERS:
            raise ValueError(f"unknown; {closest(loader, LOADERS)}")
        return loader

    @model_validator(mode="after")
    def _consistent(self) -> "DatasetParams":
        if self.test_files and not self.train_files:
            raise ValueError("test_files needs train_files: which files are to train on?")
        for path in self.raw_files:
            is_place(path)
        if twice := set(self.train_files) & set(self.test_files):
            raise ValueError(f"{min(twice)} is both in train_files and in test_files")
        if "columns" in self.model_fields_set and self.loader != "table":
            raise ValueError(f"columns are for the loader table, not for {self.loader}")
        if self.activations and self.variations:
            raise ValueError("activations are of one prompt for each row; delete variations")
        return self

    @property
    def raw_files(self) -> list[Path]:
        """What is read of it: files, or one folder."""
        rows = [self.path / file for file in (*self.train_files, *self.test_files)] or [self.path]
        return [*rows, *([self.activations] if self.activations else [])]

    @property
    def has_prompts(self) -> bool:
        """Whether its rows have texts; imported activations may come with ids alone, which stand in their place."""
        return self.columns.prompt != self.columns.id

    @property
    def question_rule(self) -> Questions:
        return self.questions or LOADERS[self.loader].question_rule


@dataclass(frozen=True, slots=True)
class Loader:
    """How a format is read, and what is true of whatever has it.

    `tokens` of a prompt, mean and longest, are rough: what a study will cost is told before anything is read. SQuAD,
    IDK and BoolQ_3L have 911, 111 and 661 characters on average, at most 4,184, 246 and 4,823; English has about four
    characters a token, and the template adds some. `question_rule` says what a repeated question means.
    """

    read: Callable[[Path, DatasetParams], list[Example]]
    tokens: tuple[int, int]
    question_rule: Questions = "repeat"


LOADERS: dict[str, Loader] = {
    "squad": Loader(lambda path, _: squad.load(path), (250, 1100), "one_side"),
    "idk": Loader(lambda path, _: idk.load(path), (50, 100), "one_side"),
    "boolq": Loader(lambda path, _: boolq.load(path), (190, 1300), "once"),
    "table": Loader(lambda path, params: table.load(path, params.columns), (60, 300)),
}


def split(
    name: str, params: DatasetParams, seed: int, rows: Sequence[Example], test_rows: Sequence[Example] | None
) -> tuple[list[Example], list[Example]]:
    """The training and the test rows that the study takes of what `load` gave.

    Raises:
        UserError: its rows do not fill the quotas.
    """
    return splits.split(
        rows,
        test_rows,
        params.n_train,
        params.n_test,
        seed,
        name,
        params.question_rule,
        params.max_per_group,
    )


def load(name: str, params: DatasetParams) -> tuple[list[Example], list[Example] | None]:
    """The rows of dataset `name`: (pool, None), or (train rows, test rows) if it has files to test on.

    Raises:
        UserError: a missing file (what brings it), a file that its loader cannot read (file and line), one class, an
            empty question, duplicate ids, or a label neither 0 nor 1.
    """
    try:
        rows = _load_files(name, params, params.train_files)
        test_rows = _load_files(name, params, params.test_files) if params.test_files else None
    except OSError as error:  # a folder or a link that may not be read
        place = error.filename or params.path
        raise UserError(
            f"dataset {name}: {place}: cannot be read ({error.strerror}); correct its path or its rights"
        ) from None
    _check_rows(name, [*rows, *(test_rows or ())])
    for part in (rows, test_rows):
        if part is not None:
            _check_classes(name, part)
    return rows, test_rows


def _load_files(name: str, params: DatasetParams, files: Sequence[str]) -> list[Example]:
    paths = [params.path / file for file in files] or _files(params.path)
    if not paths:
        raise UserError(f"dataset {name}: {params.path}: no file in this folder; put one there, or correct its path")
    for path in paths:
        if path.is_dir():
            raise UserError(f"dataset {name}: {path}: a folder, not a file; name the files in it")
        if not path.is_file():
            raise _not_found(name, path)
    try:
        rows = [row for path in paths for row in LOADERS[params.loader].read(path, params)]
    except UserError as error:
        raise UserError(f"dataset {name}: {error}") from None
    if not rows:
        raise UserError(f"dataset {name}: {', '.join(map(str, paths))}: no rows; fill it, or correct its path")
    return rows


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return [file for file in sorted(path.iterdir()) if file.is_file() and not _is_about(file.name)]


def _is_about(file: str) -> bool:
    return file.startswith((".", "LICENSE", "README")) or file.endswith(".md")


def _not_found(name: str, path: Path) -> UserError:
    remedy = sources.restore_command(path) or "correct its path, train_files or test_files in params.yaml"
    return UserError(f"dataset {name}: {missing(path, remedy)}")


def _check_rows(name: str, rows: Sequence[Example]) -> None:
    seen = set[str]()
    for row in rows:
        _check_text(name, row)
        if not any(letter.isprintable() and not letter.isspace() for letter in row.question):
            raise UserError(f"dataset {name}: row {row.id} has an empty question; give it a text or remove it")
        if row.label not in (ANSWERABLE, UNANSWERABLE):
            raise UserError(f"dataset {name}: row {row.id} has the label {row.label!r}, neither 0 nor 1")
        if row.id in seen:
            raise UserError(f"dataset {name}: the id {row.id} occurs twice; ids are unique within a dataset")
        seen.add(row.id)


def _check_text(name: str, row: Example) -> None:
    """Refuses NUL and half of a character (a cut emoji): no text that a file or a tokenizer takes."""
    for field in ("id", "group", "context", "question", "answer"):
        text = getattr(row, field) or ""
        if not isinstance(text, str):
            raise UserError(f"dataset {name}: row {row.id}: its {field} is no text; write it as one")
        check_readable(text, f"dataset {name}: row {row.id}: its {field}")


def _check_classes(name: str, rows: Sequence[Example]) -> None:
    found = Counter(row.label for row in rows)
    if len(found) < 2:
        files = ", ".join(sorted({row.source for row in rows})) or "its files"
        raise UserError(
            f"dataset {name}: {files} hold {found[ANSWERABLE]} answerable and {found[UNANSWERABLE]} unanswerable rows;"
            " a probe needs both classes"
        )

"""Writing files so that a kill at any moment leaves the old file or the new one, never half of one."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors
import safetensors.numpy

from sae_transfer.core.errors import UserError

ABOUT = "about"  # the one metadata entry of a safetensors file


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp made it private
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_room(folder: Path, n_bytes: int) -> None:
    """Refuses work whose estimated output does not fit on the disk that holds `folder`, before it starts.

    Raises:
        UserError: with what it needs and what is free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        need, have = (f"{size / 1e9:.1f} GB" for size in (n_bytes, free))
        raise UserError(
            f"{folder}: needs about {need}, the disk has {have} free; make room or take fewer rows or layers"
        )


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """JSON with sorted keys: equal values give equal bytes. NaN is refused; a missing value is null."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise missing(path) from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path} line {error.lineno}: not valid JSON; delete it and run `dvc repro`") from None
    except (ValueError, RecursionError) as error:  # no UTF-8, numbers of thousands of digits, nested without end
        raise damaged(path, error) from None


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Parquet, or CSV by the file's ending; equal tables give equal bytes."""
    with replacing(path) as temporary:
        if path.suffix == ".csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)


def read_table(path: Path) -> pd.DataFrame:
    """A table that `write_table` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except FileNotFoundError:
        raise missing(path) from None
    except (OSError, ValueError) as error:  # pyarrow and pandas raise either
        raise damaged(path, error) from None


def missing(path: Path, remedy: str | None = None) -> UserError:
    """What to say of a file that is not there; `remedy` where the caller knows better what brings it."""
    path = _here(path)
    return UserError(f"{path}: not found; {remedy or restore_command(path) or '`dvc repro` makes it'}")


def _here(path: Path) -> Path:
    """The path as a person in the working directory would write it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def restore_command(path: Path) -> str | None:
    """Which command brings a raw file that the project ships; None for outputs and for a user's own files."""
    match path.parts:
        case ("data", "external", *_):
            return None
        case ("data" | "models" as folder, *_):
            return f"`dvc pull {folder}.dvc` brings it"
        case ("pins", *_):
            return "`sae-transfer preset pin` writes it"
    return None


def damaged(path: Path, error: Exception) -> UserError:
    """What to say of a pipeline file that cannot be read."""
    cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return UserError(f"{_here(path)}: damaged ({cause}); delete it and run `dvc repro`")


def write_arrays(path: Path, arrays: dict[str, np.ndarray], about: dict[str, str]) -> None:
    """Named arrays as safetensors, with `about` as its metadata; equal arrays give equal bytes."""
    # One entry: safetensors writes several in an order that changes by run. C order: it ignores an array's strides.
    metadata = {ABOUT: json.dumps(about, sort_keys=True)} if about else None
    with replacing(path) as temporary:
        in_order = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        safetensors.numpy.save_file(in_order, temporary, metadata=metadata)


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the metadata that `write_arrays` wrote.

    Raises:
        UserError: the file is missing, or is no safetensors file.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {}).get(ABOUT, "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, about
    except FileNotFoundError:
        raise missing(path) from None
    except (safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise damaged(path, error) from None


def read_about(path: Path) -> dict[str, str]:
    """The metadata alone that `write_arrays` wrote. Raises as `read_arrays`."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            about: dict[str, str] = json.loads((file.metadata() or {}).get(ABOUT, "{}"))
            return about
    except FileNotFoundError:
        raise missing(path) from None
    except (safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise damaged(path, error) from None

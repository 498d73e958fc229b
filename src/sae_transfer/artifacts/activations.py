"""Residual streams on disk: a file a layer and shard of a dataset, bound to its rows and to what made it.

`<dataset>.<shard>.checks.json` beside it says what was measured of the model before these prompts ran.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from sae_transfer.core import files
from sae_transfer.core.errors import UserError
from sae_transfer.core.hashing import digest


@dataclass(frozen=True)
class Checks:
    """Relative differences |a - b| / |b| of a prompt's stream, the worst over a few prompts and the layers read.

    `padded` is a prompt beside longer ones against alone; `equal` beside one of its own length, measured where
    `padded` is beyond `limit`, and then only prompts of one length shared a batch (`padding` is `none`, else `right`).
    `whole` is our model against the whole one, measured once a run. None: not measured. `longest` is the longest
    prompt's number of tokens, with special tokens.
    """

    limit: float
    padded: float | None
    equal: float | None
    whole: float | None
    padding: str
    longest: int


def write_checks(path: Path, checks: Checks) -> None:
    """As JSON, in two digits: the last bits differ from machine to machine."""
    told = {key: float(f"{value:.1e}") if isinstance(value, float) else value for key, value in asdict(checks).items()}
    files.write_json(path, told)


def read_checks(path: Path) -> Checks | None:
    """What was measured before the stream at `path` was read; None for one that an older version wrote.

    Raises:
        UserError: damaged.
    """
    beside = path.with_suffix(".checks.json")
    if not beside.exists():
        return None
    try:
        return Checks(**files.read_json(beside))
    except TypeError as error:
        raise files.damaged(beside, error) from None


def write(path: Path, stream: NDArray[np.float32], ids: Sequence[str], about: Mapping[str, Any]) -> None:
    """A residual stream [n, d_model], the hash of its rows' ids [n], and what identifies it as plain JSON."""
    if len(stream) != len(ids):
        raise ValueError(f"{path}: {len(stream)} rows for {len(ids)} ids")
    told = {"about": json.dumps(about, sort_keys=True), "ids_sha256": digest(list(ids))}
    files.write_arrays(path, {"residual": np.ascontiguousarray(stream)}, told)


def read(path: Path, ids: Sequence[str]) -> NDArray[np.float32]:
    """The residual stream [n, d_model] that `write` wrote, rows in the order of `ids`.

    Raises:
        UserError: missing, damaged, or made for other rows than `ids`.
    """
    arrays, told = files.read_arrays(path)
    if "residual" not in arrays:
        raise files.damaged(path, KeyError("residual"))
    stream: NDArray[np.float32] = arrays["residual"]
    if told.get("ids_sha256") != digest(list(ids)):
        raise UserError(f"{path}: made for other rows ({len(stream)}) than these {len(ids)}; run `dvc repro`")
    return stream


def read_width(path: Path) -> int:
    """d_model of a stored residual stream, from the head of its file."""
    with safetensors.safe_open(path, framework="numpy") as file:
        return int(file.get_slice("residual").get_shape()[1])


def read_about(path: Path) -> dict[str, Any]:
    """What identifies a stored residual stream: model, weights, dtype, tokens and so on.

    Raises:
        UserError: missing or damaged.
    """
    try:
        about: dict[str, Any] = json.loads(files.read_about(path)["about"])
    except (KeyError, ValueError) as error:
        raise files.damaged(path, error) from None
    return about

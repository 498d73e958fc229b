"""Residual streams on disk: a file a layer and shard of a dataset, bound to its rows and to what made it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from sae_transfer.core import files
from sae_transfer.core.errors import UserError
from sae_transfer.core.hashing import digest


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

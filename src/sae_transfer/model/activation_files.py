"""Activations as other tools cache them: named arrays in .safetensors, .npz or .npy files."""

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae_transfer.core.errors import UserError
from sae_transfer.core.files import missing
from sae_transfer.model.saes import layer_of

LAYER = re.compile(r"(?:layer[_.]?)?(\d+)")


def read(path: Path) -> dict[str, NDArray[np.float32]]:
    """The arrays of a file by their names, as float32. Nothing that could run code is loaded.

    Raises:
        UserError: the file is missing or damaged, has another ending, or holds what is no array of numbers.
    """
    if not path.is_file():
        raise missing(path, "give the file with the activations")
    try:
        if path.suffix == ".safetensors":
            return _safetensors(path)
        if path.suffix in (".npz", ".npy"):
            return _numpy(path)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read ({error}); save its arrays as safetensors") from None
    raise UserError(f"{path}: neither .safetensors, .npz nor .npy; save the activations so (a pickle is never loaded)")


def _safetensors(path: Path) -> dict[str, NDArray[np.float32]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:  # NumPy has no bfloat16
            return {name: file.get_tensor(name).float().numpy() for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(error) from None


def _numpy(path: Path) -> dict[str, NDArray[np.float32]]:
    with np.errstate(over="ignore"):  # infinity is refused later, with its place
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {path.stem: _floats(found)}
        with found:
            return {name: _floats(found[name]) for name in found.files}


def _floats(array: NDArray[Any]) -> NDArray[np.float32]:
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{array.dtype.name} values in place of numbers")
    return array.astype(np.float32)


def layer_of_name(name: str) -> int | None:
    """The layer that an array's name says: `layer_3`, `3`, `blocks.3.hook_resid_post`, `model.layers.3`; else None."""
    match = LAYER.fullmatch(name)
    return int(match[1]) if match else layer_of(name)

"""Residual streams that another tool made, as a dataset brings them: one safetensors file, a tensor for each layer.

`layer_<L>` is [n, d_model] float32: the stream after layer L at the token that is read, in the order of the rows in the
dataset's file.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
from numpy.typing import NDArray

from sae_transfer.core import files
from sae_transfer.core.errors import UserError
from sae_transfer.core.space import residual_stream


def write(path: Path, streams: Mapping[int, NDArray[np.float32]]) -> None:
    """The streams by layer."""
    files.write_arrays(path, {residual_stream(layer).name: stream for layer, stream in streams.items()}, {})


def read(path: Path, layer: int, n: int) -> NDArray[np.float32]:
    """The stream [n, d_model] after a layer.

    Raises:
        UserError: the file is missing or damaged; it lacks the layer, has another number of rows, or NaN or infinity.
    """
    name = residual_stream(layer).name
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            there = list(file.keys())
            stream: NDArray[np.float32] | None = file.get_tensor(name).astype(np.float32) if name in there else None
    except FileNotFoundError:
        raise files.missing(path, "import the activations again, or correct params.yaml") from None
    except (safetensors.SafetensorError, TypeError) as error:
        raise UserError(f"{path}: no activations ({error}); import them again") from None
    if stream is None:
        raise UserError(f"{path}: has {', '.join(there)}, no {name}; import it too, or leave it out of model.layers")
    check(stream, n, f"{path}, {name}")
    return stream


def check(stream: NDArray[np.float32], n: int, where: str) -> None:
    """Raises a UserError for a stream that is not [n, d_model], or has NaN or infinity; `where` begins its message."""
    if stream.ndim != 2 or len(stream) != n:
        raise UserError(f"{where}: the shape is {list(stream.shape)}, and there are {n} rows; give [{n}, d_model]")
    wrong = np.argwhere(~np.isfinite(stream))
    if len(wrong):
        row, column = wrong[0]
        raise UserError(f"{where}: {stream[row, column]} in row {row}, column {column}; leave that row out or mend it")

"""A person's own arrays as the package's: whatever library they come from, refused in one line where they cannot be."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from sae_transfer.core.arrays import Matrix
from sae_transfer.core.errors import UserError

TWO = ({0, 1}, {-1, 1})  # labels; the higher one stands for "answerable"


def is_sparse(X: Any) -> bool:
    """Whether X is a sparse matrix or array of SciPy."""
    return bool(sparse.issparse(X))


def matrix(X: Any) -> Matrix:
    """X as [n, d] of float32 or float64, CSR where it is sparse. Raises as `Rows.of`."""
    found: Any = sparse.csr_array(X) if is_sparse(X) else _array(X, "X")
    if found.ndim != 2 or 0 in found.shape:
        raise UserError(f"X has the shape {tuple(found.shape)}; give [rows, columns], with at least one of each")
    if found.dtype.kind not in "fiub":
        raise UserError(f"X holds {found.dtype.name} values; give numbers")
    if found.dtype not in (np.float32, np.float64):
        found = found.astype(np.float32 if found.dtype == np.float16 else np.float64)
    check_finite(found, "X")
    return found


def check_finite(X: Matrix, what: str) -> None:
    """Raises a UserError that names the first value of X [n, d] that is NaN or infinite."""
    wrong = ~np.isfinite(X.data if is_sparse(X) else X)
    if wrong.any():
        _refuse(X, wrong, what, "leave that row out or mend it")


def check_not_negative(X: Matrix, what: str) -> None:
    """Raises a UserError that names the first negative value of X [n, d]."""
    wrong = (X.data if is_sparse(X) else X) < 0
    if wrong.any():
        _refuse(X, wrong, what, "SAE activations are never negative")


def _refuse(X: Matrix, wrong: NDArray[np.bool_], what: str, why: str) -> None:
    """`wrong` marks values of a dense X [n, d], or of the data of a sparse one [nnz]."""
    rows, columns = (at[wrong] for at in X.tocoo().coords) if is_sparse(X) else np.nonzero(wrong)
    raise UserError(f"{what} has {X[rows[0], columns[0]]} in row {rows[0]}, column {columns[0]}; {why}")


def labels(y: Any, n: int) -> NDArray[np.int_]:
    """Labels y as [n] of 0 and 1. Raises as `Rows.of`."""
    values = _column(y, n, "y")
    found = set(np.unique(values).tolist())
    if not any(found <= two for two in TWO):
        shown = ", ".join(map(repr, sorted(found, key=str)[:4]))
        raise UserError(f"y holds {shown}; give labels of 0 and 1, of False and True, or of -1 and 1")
    if len(found) == 1:
        raise UserError(f"y holds the label {found.pop()} alone; a probe needs rows of both")
    return np.asarray(values == 1, dtype=np.int64)


def names(values: Any, n: int, what: str) -> NDArray[np.str_]:
    """Groups or ids as [n] texts. Raises as `Rows.of`."""
    return _column(values, n, what).astype(str)


def _column(values: Any, n: int, what: str) -> NDArray[Any]:
    """[n] values, none of them missing."""
    found = _array(values, what)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1 or len(found) != n:
        raise UserError(f"{what} has the shape {tuple(found.shape)}, and X has {n} rows; give one value for each")
    missing = pd.isna(found)
    if missing.any():
        raise UserError(f"{what} is missing in row {int(np.argmax(missing))}; leave that row out or name it")
    return np.array(found.tolist()) if found.dtype == object else found


def _array(values: Any, what: str) -> NDArray[Any]:
    if hasattr(values, "detach"):  # a torch tensor, on whatever device
        values = values.detach().cpu()
        if str(values.layout) != "torch.strided":
            raise UserError(f"{what} is a sparse torch tensor; give a dense one, or a scipy.sparse matrix")
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
    try:
        return np.asarray(values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} is no array ({error}); give rows of one length") from None

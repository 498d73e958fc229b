"""The types of arrays that signatures name."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Matrix = Any  # [n, d]: a dense array, or a CSR array of SAE features

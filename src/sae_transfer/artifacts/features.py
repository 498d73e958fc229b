"""SAE features on disk as sparse rows (8 bytes a non-zero), the SAE's health, and where its features lie."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sae_transfer.core.arrays import Ints
from sae_transfer.core.files import damaged, read_about, read_arrays, write_arrays


@dataclass(frozen=True)
class Health:
    """How well an SAE fits the activations that it encoded.

    `l0` is the mean number of active features a row; `explained_variance` is 1 - sum|x - x'|^2 / sum|x - mean|^2, NaN
    where the activations are constant; `dead` is the share of features that fire on no row.
    """

    width: int
    l0: float
    explained_variance: float
    dead: float


@dataclass(frozen=True)
class RowNorms:
    """How an SAE that normalises rows restores them: reconstruction times `scale` [n], plus `shift` [n]."""

    scale: NDArray[np.float32]
    shift: NDArray[np.float32]

    def take(self, rows: NDArray[Any]) -> "RowNorms":
        return RowNorms(self.scale[rows], self.shift[rows])


@dataclass(frozen=True)
class Directions:
    """Where an SAE's features lie in the residual stream: `feature_ids` [m], `encoder` and `decoder` [m, d_model].

    Feature i reads `encoder[i]` from the stream (before bias and threshold) and adds `decoder[i]` times its activation
    to the reconstruction. `objective` is what the SAE was trained with (batchtopk, jumprelu, ...).
    """

    feature_ids: Ints
    encoder: NDArray[np.float32]
    decoder: NDArray[np.float32]
    objective: str


@dataclass(frozen=True)
class Decoder:
    """What turns features into the SAE's reconstruction: `vectors` [k, d_model] of `feature_ids` [k], `bias` [d_model].

    Features that it lacks fire on no row of the study.
    """

    feature_ids: Ints
    vectors: NDArray[np.float32]
    bias: NDArray[np.float32]

    def reconstruct(self, features: sparse.csr_array, norms: RowNorms | None = None) -> NDArray[np.float32]:
        """The reconstruction [n, d_model] of the residual stream from features [n, d_sae]."""
        rebuilt = np.asarray(features[:, self.feature_ids] @ self.vectors, dtype=np.float32) + self.bias
        return rebuilt if norms is None else rebuilt * norms.scale[:, None] + norms.shift[:, None]


def write(
    path: Path, features: sparse.csr_array, health: Health, source: Mapping[str, Any], norms: RowNorms | None = None
) -> None:
    """Features [n, d_sae], the SAE's health on them, and what was encoded with what (`source`), as plain JSON."""
    arrays: dict[str, NDArray[Any]] = {
        "data": features.data.astype(np.float32),
        "indices": features.indices.astype(np.int32),
        "indptr": features.indptr.astype(np.int64),
        "shape": np.array(features.shape, dtype=np.int64),
    }
    if norms is not None:
        arrays |= {"norm_scale": norms.scale, "norm_shift": norms.shift}
    known = {key: None if value != value else value for key, value in asdict(health).items()}
    told = {"health": json.dumps(known, sort_keys=True), "source": json.dumps(dict(source), sort_keys=True)}
    write_arrays(path, arrays, told)


def read(path: Path) -> tuple[sparse.csr_array, RowNorms | None]:
    """The features [n, d_sae] that `write` wrote, and the rows' norms where the SAE has any.

    Raises:
        UserError: missing, or damaged.
    """
    arrays, _ = read_arrays(path)
    try:
        found = sparse.csr_array(
            (arrays["data"], arrays["indices"], arrays["indptr"]),
            shape=(int(arrays["shape"][0]), int(arrays["shape"][1])),
        )
    except (KeyError, ValueError) as error:
        raise damaged(path, error) from None
    norms = RowNorms(arrays["norm_scale"], arrays["norm_shift"]) if "norm_scale" in arrays else None
    return found, norms


def read_health(path: Path) -> Health:
    """The health that `write` wrote.

    Raises:
        UserError: missing, or damaged.
    """
    try:
        health = json.loads(read_about(path)["health"])
        variance = health["explained_variance"]
        return Health(health["width"], health["l0"], float("nan") if variance is None else variance, health["dead"])
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, error) from None


def read_source(path: Path) -> dict[str, Any]:
    """The `source` that `write` wrote.

    Raises:
        UserError: missing, or damaged.
    """
    try:
        source: dict[str, Any] = json.loads(read_about(path)["source"])
    except (KeyError, ValueError) as error:
        raise damaged(path, error) from None
    return source


def write_directions(path: Path, found: Directions, decoder: Decoder) -> None:
    """Both as safetensors. The features of `found` are among those of `decoder`; shared vectors are stored once."""
    arrays: dict[str, NDArray[Any]] = {
        "fired_ids": decoder.feature_ids,
        "fired_decoder": decoder.vectors,
        "bias": decoder.bias,
        "feature_ids": found.feature_ids,
        "encoder": found.encoder,
    }
    write_arrays(path, arrays, {"objective": found.objective})


def read_directions(path: Path) -> tuple[Directions, Decoder]:
    """What `write_directions` wrote.

    Raises:
        UserError: missing, or damaged.
    """
    arrays, about = read_arrays(path)
    try:
        decoder = Decoder(arrays["fired_ids"], arrays["fired_decoder"], arrays["bias"])
        at = np.searchsorted(decoder.feature_ids, arrays["feature_ids"])
        found = Directions(arrays["feature_ids"], arrays["encoder"], decoder.vectors[at], about["objective"])
    except (KeyError, IndexError) as error:
        raise damaged(path, error) from None
    return found, decoder

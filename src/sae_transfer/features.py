"""SAE features of residual streams: encoding with any SAE that SAELens loads (see `saes`), stored as sparse rows."""

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sae_transfer.records import UserError
from sae_transfer.saes import SaeParams, as_trained, centres, layer_of, load_sae
from sae_transfer.store import damaged, missing, read_arrays, read_json, replacing, write_arrays, write_json

__all__ = ["Health", "SaeParams", "encode", "layer_of", "load_sae", "read", "read_health", "write"]

BATCH_BYTES = 256 * 2**20  # of one dense [batch, d_sae] float32 buffer; SAELens allocates a few of them


class Encoded(NamedTuple):
    """What an SAE makes of n rows: CSR [n, d_sae] of float32, its health, its reconstruction [n, d_model] of them."""

    features: sparse.csr_array
    health: "Health"
    reconstruction: NDArray[np.float32]


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
class Directions:
    """Where an SAE's features lie in the residual stream: `feature_ids` [m], `encoder` and `decoder` [m, d_model].

    Feature i reads `encoder[i]` from the stream (before bias and threshold) and adds `decoder[i]` times its activation
    to the reconstruction. `objective` is what the SAE was trained with (batchtopk, jumprelu, ...).
    """

    feature_ids: NDArray[np.int64]
    encoder: NDArray[np.float32]
    decoder: NDArray[np.float32]
    objective: str


def encode(
    sae: Any, name: str, activations: NDArray[np.float32], progress: Callable[[int], object] = lambda rows: None
) -> Encoded:
    """Features of every row, in batches bounded in memory; no dense array for all rows ever exists.

    Args:
        sae: what `load_sae` gave.
        name: the SAE's name, for messages.
        activations: [n, d_model].
        progress: called with the number of rows of each finished batch.

    Raises:
        UserError: d_model is not the SAE's d_in.
    """
    import torch

    d_in, d_sae = sae.cfg.d_in, sae.cfg.d_sae
    if activations.shape[1] != d_in:
        raise UserError(f"saes.{name}: d_in is {d_in}, but the model's activations have {activations.shape[1]} numbers")
    size = max(1, BATCH_BYTES // (4 * d_sae))
    activations = as_trained(sae, activations)
    mean = activations.mean(axis=0, dtype=np.float64)
    rebuilt = np.empty(activations.shape, dtype=np.float32)
    blocks, missed, spread = [], 0.0, 0.0
    for start in range(0, len(activations), size):
        rows = activations[start : start + size]
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(rows)).to(sae.W_dec.device)
            dense = sae.encode(x)
            decoded = sae.decode(dense)
            missed += float(((x - decoded).double() ** 2).sum())
            rebuilt[start : start + size] = decoded.float().cpu().numpy()
            blocks.append(_sparse_rows(dense))
        spread += float(((rows - mean) ** 2).sum())
        progress(len(rows))
    features = sparse.csr_array(sparse.vstack(blocks, format="csr"))
    fired = np.bincount(features.indices, minlength=d_sae) > 0
    variance = 1 - missed / spread if spread > 0 else float("nan")
    health = Health(d_sae, features.nnz / len(activations), variance, float(1 - fired.mean()))
    return Encoded(features, health, rebuilt)


def directions(sae: Any, feature_ids: NDArray[np.int64]) -> Directions:
    """The directions of some features in the coordinates of the raw residual stream.

    What SAELens does beside the two matrices is folded in: a gated SAE's magnitude scale; the decoder norm that a TopK
    SAE moves from decoder to activation; centring over d_model by layer_norm or by TransformerLens, which takes an
    encoder's mean away. The length by which layer_norm and constant_norm_rescale divide is a row's own and left out: it
    changes no direction.

    Args:
        sae: what `load_sae` gave.
        feature_ids: [m].
    """
    import torch

    with torch.inference_mode():
        chosen = torch.from_numpy(feature_ids).to(sae.W_dec.device)
        encoder, decoder = sae.W_enc[:, chosen].T.float(), sae.W_dec[chosen].float()
        if hasattr(sae, "r_mag"):
            encoder = encoder * sae.r_mag[chosen].exp()[:, None]
        if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
            norm = decoder.norm(dim=1, keepdim=True)
            encoder, decoder = encoder * norm, decoder / norm
        if sae.cfg.normalize_activations == "layer_norm" or centres(sae):
            encoder = encoder - encoder.mean(dim=1, keepdim=True)
    objective = sae.cfg.metadata.training_architecture or sae.cfg.architecture()
    return Directions(feature_ids, encoder.cpu().numpy(), decoder.cpu().numpy(), str(objective))


def write_directions(path: Path, found: Directions) -> None:
    """`feature_ids`, `encoder` and `decoder` as safetensors; the objective is in its metadata."""
    arrays: dict[str, NDArray[Any]] = {
        "feature_ids": found.feature_ids,
        "encoder": found.encoder,
        "decoder": found.decoder,
    }
    write_arrays(path, arrays, {"objective": found.objective})


def read_directions(path: Path) -> Directions:
    """The directions that `write_directions` wrote.

    Raises:
        UserError: missing, or damaged.
    """
    arrays, about = read_arrays(path)
    try:
        return Directions(arrays["feature_ids"], arrays["encoder"], arrays["decoder"], about["objective"])
    except KeyError as error:
        raise damaged(path, error) from None


def _sparse_rows(dense: Any) -> sparse.csr_array:
    row, column = (index.cpu().numpy() for index in dense.nonzero(as_tuple=True))
    values = dense[row, column].cpu().numpy()
    ends = np.searchsorted(row, np.arange(dense.shape[0] + 1))
    return sparse.csr_array((values, column.astype(np.int32), ends.astype(np.int64)), shape=tuple(dense.shape))


def write(
    folder: Path,
    name: str,
    features: sparse.csr_array,
    health: Health,
    sha256_of_activations: str,
    source: Mapping[str, Any] | None = None,
) -> None:
    """`<name>.npz` (8 bytes a non-zero) and beside it `<name>.json`: the SAE's health, what was encoded, with what.

    `source` is what `saes.check_fits` says of the SAE.
    """
    path = folder / f"{name}.npz"
    with replacing(path) as temporary:
        np.savez(
            temporary,
            data=features.data.astype(np.float32),
            indices=features.indices.astype(np.int32),
            indptr=features.indptr.astype(np.int64),
            shape=np.array(features.shape, dtype=np.int64),
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    about = {key: None if value != value else value for key, value in asdict(health).items()}
    about |= {"activations": sha256_of_activations, "sha256": digest, "source": dict(source or {})}
    write_json(path.with_suffix(".json"), about)


def read(folder: Path, name: str) -> sparse.csr_array:
    """The features [n, d_sae] that `write` wrote.

    Raises:
        UserError: missing, or damaged.
    """
    path = folder / f"{name}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            return sparse.csr_array((file["data"], file["indices"], file["indptr"]), shape=tuple(file["shape"]))
    except FileNotFoundError:
        raise missing(path) from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(path, error) from None


def write_reconstruction(folder: Path, name: str, reconstruction: NDArray[np.float32]) -> None:
    """`<name>.reconstruction.safetensors`: the SAE's reconstruction [n, d_model] of the residual stream."""
    write_arrays(_reconstruction(folder, name), {"reconstruction": reconstruction}, {})


def read_reconstruction(folder: Path, name: str) -> NDArray[np.float32]:
    """What `write_reconstruction` wrote, [n, d_model].

    Raises:
        UserError: missing, or damaged.
    """
    arrays, _ = read_arrays(_reconstruction(folder, name))
    return arrays["reconstruction"]


def _reconstruction(folder: Path, name: str) -> Path:
    return folder / f"{name}.reconstruction.safetensors"


def read_health(folder: Path, name: str) -> Health:
    """The health that `write` wrote.

    Raises:
        UserError: missing, or damaged.
    """
    path = folder / f"{name}.json"
    about = read_json(path)
    try:
        variance = about["explained_variance"]
        return Health(about["width"], about["l0"], float("nan") if variance is None else variance, about["dead"])
    except (KeyError, TypeError) as error:
        raise damaged(path, error) from None

"""SAE features of residual streams: encoding with any SAE that SAELens loads, and the directions of features."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sae_transfer.artifacts.features import Decoder, Directions, Health, RowNorms
from sae_transfer.core.arrays import Ints
from sae_transfer.core.errors import UserError
from sae_transfer.model.saes import as_trained, centres

BATCH_BYTES = 256 * 2**20  # of one dense [batch, d_sae] float32 buffer; SAELens allocates a few of them


class Encoded(NamedTuple):
    """What an SAE makes of n rows: CSR [n, d_sae] of float32, its health, the rows' norms if it divides by them."""

    features: sparse.csr_array
    health: Health
    norms: RowNorms | None


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
    blocks, missed, spread = [], 0.0, 0.0
    for start in range(0, len(activations), size):
        rows = activations[start : start + size]
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(rows)).to(sae.W_dec.device)
            dense = sae.encode(x)
            decoded = sae.decode(dense)
            missed += float(((x - decoded).double() ** 2).sum())
            blocks.append(_sparse_rows(dense))
        spread += float(((rows - mean) ** 2).sum())
        progress(len(rows))
    features = sparse.csr_array(sparse.vstack(blocks, format="csr"))
    fired = np.bincount(features.indices, minlength=d_sae) > 0
    variance = 1 - missed / spread if spread > 0 else float("nan")
    health = Health(d_sae, features.nnz / len(activations), variance, float(1 - fired.mean()))
    return Encoded(features, health, row_norms(sae, activations))


def row_norms(sae: Any, activations: NDArray[np.float32]) -> RowNorms | None:
    """By what SAELens divides each row before it encodes, and multiplies the reconstruction; None for most SAEs."""
    kind = sae.cfg.normalize_activations
    if kind == "layer_norm":
        mean = activations.mean(axis=1, dtype=np.float64)
        deviation = activations.std(axis=1, ddof=1, dtype=np.float64)
        return RowNorms(deviation.astype(np.float32), mean.astype(np.float32))
    if kind == "constant_norm_rescale":
        length = np.linalg.norm(activations.astype(np.float64), axis=1) / np.sqrt(activations.shape[1])
        return RowNorms(length.astype(np.float32), np.zeros(len(length), dtype=np.float32))
    return None


def decoder(sae: Any, feature_ids: Ints) -> Decoder:
    """What turns features into the SAE's reconstruction, for some features [k]."""
    import torch

    with torch.inference_mode():
        chosen = torch.from_numpy(feature_ids).to(sae.W_dec.device)
        vectors = sae.W_dec[chosen].float()
        if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
            vectors = vectors / vectors.norm(dim=1, keepdim=True)
        return Decoder(feature_ids, vectors.cpu().numpy(), sae.b_dec.float().cpu().numpy())


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


def _sparse_rows(dense: Any) -> sparse.csr_array:
    row, column = (index.cpu().numpy() for index in dense.nonzero(as_tuple=True))
    values = dense[row, column].cpu().numpy()
    ends = np.searchsorted(row, np.arange(dense.shape[0] + 1))
    return sparse.csr_array((values, column.astype(np.int32), ends.astype(np.int64)), shape=tuple(dense.shape))

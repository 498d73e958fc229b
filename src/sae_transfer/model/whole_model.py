"""Whether the model that we cut, and whose weights we name, is the one that transformers loads by itself."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sae_transfer.core.errors import UserError
from sae_transfer.core.memory import available_memory
from sae_transfer.model import extraction, invariance, loading
from sae_transfer.model.invariance import LIMIT, Ids, Streams
from sae_transfer.model.model_params import ModelParams
from sae_transfer.model.tokens import Tokens

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

ROOM = 0.5  # of the device's free memory: what the whole model may take there


def distance(model: "PreTrainedModel", tokens: Tokens, params: ModelParams) -> float | None:
    """The largest relative difference of a stream to the whole model's, on a few prompts, one at a time.

    None where the whole model does not fit in memory beside `model`, or is not run by token ids alone.

    Raises:
        UserError: it is beyond the limit: what we read is not the model's residual stream.
    """
    if params.device_map is not None or loading.checkpoint_bytes(params) > ROOM * _free(params):
        return None
    rows = invariance.compared([len(ids) for ids in tokens.ids], params.tokens_per_batch)
    ids, at = [tokens.ids[row] for row in rows], [tokens.at[row] for row in rows]
    path, ours = loading.decoder_layers(model)
    try:
        whole = loading.load_whole(params)
        part = next(each for each in whole.modules() if type(each) is type(model))
        theirs = _streams(whole, loading.decoder_layers(part)[1], ids, at, params)
    except (UserError, StopIteration):  # it has no class of its own, or runs only with images: nothing to compare with
        return None
    found = invariance.distance(_streams(model, ours, ids, at, params), theirs)
    if found > LIMIT[params.dtype]:
        raise UserError(
            f"model {params.name}: not supported: {type(model).__name__} up to layer {len(ours) - 1} of {path} differs "
            f"from the whole model (relative difference {found:.2g})"
        )
    return found


def _streams(
    model: "PreTrainedModel", layers: "Sequence[nn.Module]", ids: Ids, at: Sequence[int], params: ModelParams
) -> Streams:
    """What the layers of params hand on, one prompt at a time."""
    plan = [[row] for row in range(len(ids))]
    return extraction.outputs_of(model, {layer: layers[layer] for layer in params.layers}, ids, at, plan)


def _free(params: ModelParams) -> int:
    """Bytes free where the model lies."""
    import torch

    device = torch.device(loading.available_device(params.device))
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()

"""Whether the model that we cut, and whose weights we name, is the one that transformers loads by itself."""

from typing import TYPE_CHECKING

from sae_transfer.core.errors import UserError
from sae_transfer.core.memory import available_memory
from sae_transfer.model import extraction, invariance, loading
from sae_transfer.model.invariance import LIMIT, Run
from sae_transfer.model.model_params import ModelParams
from sae_transfer.model.tokens import Tokens

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

ROOM = 0.5  # of the device's free memory: what the whole model may take there


def distance(model: "PreTrainedModel", tokens: Tokens, params: ModelParams) -> float | None:
    """The largest relative difference of a stream to the whole model's, on a few prompts, one at a time.

    None where the whole model does not fit in memory beside `model`, or has no part of its class.

    Raises:
        UserError: it is beyond the limit: what we read is not the model's residual stream.
    """
    if params.device_map is not None or loading.checkpoint_bytes(params) > ROOM * _free(params):
        return None
    rows = invariance.compared([len(ids) for ids in tokens.ids], params.tokens_per_batch)
    ids, at = [tokens.ids[row] for row in rows], [tokens.at[row] for row in rows]
    whole = loading.load_whole(params)
    part = next((each for each in whole.modules() if type(each) is type(model)), None)
    if part is None:
        return None
    (path, ours), theirs = loading.decoder_layers(model), loading.decoder_layers(part)[1]
    found = invariance.distance(
        invariance.one_by_one(_through(model, {layer: ours[layer] for layer in params.layers}), ids, at),
        invariance.one_by_one(_through(whole, {layer: theirs[layer] for layer in params.layers}), ids, at),
    )
    if found > LIMIT[params.dtype]:
        raise UserError(
            f"model {params.name}: not supported: {type(model).__name__} up to layer {len(ours) - 1} of {path} differs "
            f"from the whole model (relative difference {found:.2g})"
        )
    return found


def _through(model: "PreTrainedModel", layers: "dict[int, nn.Module]") -> Run:
    return lambda ids, at: extraction.outputs_of(model, layers, ids, at, [[row] for row in range(len(ids))])


def _free(params: ModelParams) -> int:
    """Bytes free where the model lies."""
    import torch

    device = torch.device(loading.available_device(params.device))
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()

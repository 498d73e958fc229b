"""The residual stream at one token of each prompt, for every wanted layer in one pass over the prompts.

What identifies a set of activations is written beside it and checked when it is read. Before a pass over prompts,
`invariance` looks whether a row depends on what else is in its batch.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from sae_transfer.core.errors import UserError
from sae_transfer.core.hashing import digest
from sae_transfer.model import invariance, pins
from sae_transfer.model.invariance import LIMIT, Batching
from sae_transfer.model.loading import decoder_layers, input_device
from sae_transfer.model.model_params import ModelParams
from sae_transfer.model.tokens import Tokens, tokenise

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def residual_stream(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    params: ModelParams,
    progress: bool = False,
    chat: Sequence[bool] | None = None,
) -> dict[int, np.ndarray]:
    """The output of each wanted layer (resid_post, before any final norm) at each prompt's `params.position`.

    The layers' modules are hooked, since transformers' `hidden_states` ends with the stream after the final norm.
    Padding is on the right, so that a causal model never sees it; encoders have it masked.

    Args:
        model: as `load_model` gives it.
        tokenizer: its tokenizer.
        prompts: n rendered prompts.
        params: the layers, and how prompts are tokenised and batched.
        progress: whether to show a bar with tokens/s on stderr.
        chat: whether each prompt goes through the chat template [n]; by default as params say.

    Returns:
        {layer: [n, d_model] float32}, rows in the order of the prompts.

    Raises:
        UserError: as `tokenise`, `invariance.measure` and `streams_of`.
    """
    found = tokenise(model, tokenizer, prompts, params, chat)
    batching = measured(model, found, params)
    return streams_of(model, found.ids, found.at, params, batching.equal_lengths, progress)


def measured(model: "PreTrainedModel", tokens: Tokens, params: ModelParams) -> Batching:
    """How far the prompts' streams move with their batch.

    Raises:
        UserError: as `invariance.measure`.
    """
    every_layer = decoder_layers(model)[1]
    layers = {layer: every_layer[layer] for layer in params.layers}

    def run(ids: Sequence[Sequence[int]], at: Sequence[int]) -> dict[int, np.ndarray]:
        plan = batches([len(row) for row in ids], params.tokens_per_batch)
        return outputs_of(model, layers, ids, at, plan, finite=False)  # the pass over all prompts names the row

    try:
        return invariance.measure(run, tokens.ids, tokens.at, params.tokens_per_batch, LIMIT[params.dtype])
    except invariance.UnstableError as error:
        raise UserError(f"model {params.name}: not supported: {type(model).__name__} {error}") from None


def streams_of(
    model: "PreTrainedModel",
    token_ids: Sequence[Sequence[int]],
    at: Sequence[int],
    params: ModelParams,
    equal_lengths: bool = False,
    progress: bool = False,
) -> dict[int, np.ndarray]:
    """`residual_stream` of n prompts that are token ids already, each read at its index in `at` [n].

    With `equal_lengths` only prompts of one length share a batch, and nothing is padded.
    """
    every_layer = decoder_layers(model)[1]
    layers = {layer: every_layer[layer] for layer in params.layers}
    plan = batches([len(ids) for ids in token_ids], params.tokens_per_batch, equal_lengths)
    return outputs_of(model, layers, token_ids, at, plan, progress)


def outputs_of(
    model: "PreTrainedModel",
    layers: Mapping[int, "nn.Module"],
    token_ids: Sequence[Sequence[int]],
    at: Sequence[int],
    plan: Iterable[Sequence[int]],
    progress: bool = False,
    finite: bool = True,
) -> dict[int, np.ndarray]:
    """What modules of a model hand on, {layer: [n, d_model]}, by the token ids of n prompts in batches of `plan`.

    On a GPU nothing in the loop waits for the device: prompts leave from pinned memory and streams arrive in it, both
    while the device computes, so NaN is looked for at the end there, and after each batch elsewhere. (Where attention
    is sdpa, transformers itself looks once a batch whether anything is padded; for Gemma 2, eager, it does not.)

    Raises:
        UserError: NaN or infinity in the stream, where it must be `finite`; the model fails on a batch, or hands on no
            single stream.
    """
    import torch
    from tqdm import tqdm

    config = model.config.get_text_config()
    device, n, where = input_device(model), len(token_ids), np.asarray(at)
    waits = device.type != "cuda"
    # In the order of the batches, so that each batch arrives in one piece.
    shape = (len(layers), n, config.hidden_size)
    arrived = torch.empty(shape, dtype=torch.float32, pin_memory=not waits)
    order: list[int] = []
    # In tokens: the longest prompts come first, and by prompts the end would seem twice as far away.
    n_tokens = sum(map(len, token_ids))
    bar = tqdm(
        total=n_tokens, desc="residual stream", unit=" tokens", unit_scale=True, leave=False, disable=not progress
    )
    with bar, torch.inference_mode():
        for rows in plan:
            tokens, mask = padded([token_ids[row] for row in rows])
            batch = arrived[:, len(order) : len(order) + len(rows)]
            with _explained(model, tokens):
                with captured(layers, _sent(where[rows], device), getattr(config, "altup_active_idx", None)) as caught:
                    model(input_ids=_sent(tokens, device), attention_mask=_sent(mask, device))
                for into, layer in zip(batch, layers, strict=True):
                    into.copy_(caught[layer], non_blocking=not waits)
            if waits and finite:
                _check_finite(batch.numpy(), rows, list(layers))
            order += rows
            bar.update(sum(len(token_ids[row]) for row in rows))
    if not waits:
        _synchronise()
    if not waits and finite:
        _check_finite(arrived.numpy(), order, list(layers))
    back = np.argsort(order)
    return {layer: values[back] for layer, values in zip(layers, arrived.numpy(), strict=True)}


def _sent(values: np.ndarray, device: "torch.device") -> "torch.Tensor":
    """On the device, or from pinned memory on its way there."""
    import torch

    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _synchronise() -> None:
    """Waits for every GPU: the layers of a model that was spread end on several."""
    import torch

    for number in range(torch.cuda.device_count()):
        torch.cuda.synchronize(number)


def batches(lengths: Sequence[int], tokens_per_batch: int, equal: bool = False) -> Iterator[list[int]]:
    """Rows in batches of like length, the longest first, so that what does not fit in memory fails at once.

    A batch has at most `tokens_per_batch` tokens with its padding; a longer row makes a batch of its own. With `equal`,
    all rows of a batch have the same length.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    while order:
        size = max(1, tokens_per_batch // lengths[order[0]])
        batch = [row for row in order[:size] if not equal or lengths[row] == lengths[order[0]]]
        yield batch
        order = order[len(batch) :]


def padded(ids: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and attention mask, int64 [batch, longest], padded on the right whatever the tokenizer's setting.

    The padding is token 0, which every model has: the mask hides it, and some tokenizers name no padding token.
    """
    mask = np.arange(max(len(row) for row in ids)) < np.array([len(row) for row in ids])[:, None]
    tokens = np.zeros(mask.shape, np.int64)
    tokens[mask] = np.concatenate([np.asarray(row, np.int64) for row in ids])
    return tokens, mask.astype(np.int64)


@contextmanager
def captured(
    layers: Mapping[int, "nn.Module"], at: "torch.Tensor", active: int | None = None
) -> Iterator[dict[int, "torch.Tensor"]]:
    """Within the block, one forward pass: {layer: [batch, d_model] float32} of each layer's output at token `at`.

    Of a model with several streams [streams, batch, tokens, d_model] (Gemma 3n) the one that is `active` is kept. Only
    that position is kept, inside the hook, so that memory does not grow with layers times tokens.

    Raises:
        ValueError: a layer hands on something else than one stream [batch, tokens, d_model].
        RuntimeError: a layer ran twice or not at all.
    """
    import torch

    rows = torch.arange(len(at), device=at.device)
    caught: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Callable[[object, object, Any], None]:
        def hook(_module: object, _inputs: object, output: Any) -> None:
            if layer in caught:
                raise RuntimeError(f"layer {layer} ran twice in one forward pass")
            hidden = output[0] if isinstance(output, (tuple, list)) else output
            if active is not None and hidden.ndim == 4:
                hidden = hidden[active]
            if not isinstance(hidden, torch.Tensor) or hidden.ndim != 3 or len(hidden) != len(rows):
                raise ValueError(f"layer {layer} hands on something else than one residual stream of each prompt")
            caught[layer] = hidden[rows, at].float()

        return hook

    handles = [module.register_forward_hook(keep(layer)) for layer, module in layers.items()]
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()
    if silent := sorted(layers.keys() - caught.keys()):
        raise RuntimeError(f"layers {silent} did not run in the forward pass")


@contextmanager
def _explained(model: "PreTrainedModel", tokens: np.ndarray) -> Iterator[None]:
    """Says in one line which batch a model cannot run, and why."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        raise UserError(
            f"model {model.name_or_path}: a batch of {tokens.shape[0]} prompts of {tokens.shape[1]} tokens does not "
            "fit in memory; lower model.tokens_per_batch, or set model.device_map: auto"
        ) from None
    except (IndexError, RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
        cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"model {model.name_or_path}: not supported: {type(model).__name__} fails on prompts of "
            f"{tokens.shape[1]} tokens ({cause})"
        ) from error


def _check_finite(values: np.ndarray, rows: Sequence[int], layers: Sequence[int]) -> None:
    """Names the first layer of streams [layers, rows, d_model], and in it the first row, with NaN or infinity."""
    bad = ~np.isfinite(values).all(axis=2)
    if bad.any():
        layer = int(np.argmax(bad.any(axis=1)))
        row = min(row for row, is_bad in zip(rows, bad[layer], strict=True) if is_bad)
        raise UserError(
            f"row {row}: NaN or infinity in the residual stream after layer {layers[layer]}; "
            "set model.dtype: float32, or fetch the model again if it is"
        )


def identity(
    params: ModelParams,
    model: "PreTrainedModel",
    weights: Mapping[str, Any],
    prompts: Sequence[str],
    tokens: Tokens,
    padding: str = "right",
) -> dict[str, Any]:
    """Everything that decides the values of a residual stream, as plain JSON; `weights` as `weights_identity` says.

    `padding` is `none` where only prompts of one length shared a batch. `adds_bos` is null where there is no BOS.
    """
    import torch
    import transformers

    return {
        "model": params.name,
        "source": str(params.folder or pins.FILE),
        **weights,
        "dtype": params.dtype,
        "device": input_device(model).type,
        "attention": str(model.config._attn_implementation),
        "position": params.position,
        "chat_template": params.chat_template,
        "chat_prompts": tokens.chat,
        "truncate": params.truncate,
        "batches": {"tokens_per_batch": params.tokens_per_batch, "padding": padding, "order": "longest first"},
        "n": len(prompts),
        "prompts_sha256": digest(list(prompts)),
        "tokens_sha256": digest(tokens.ids),  # the tokenizer and the chat template are in it
        "positions_sha256": digest(tokens.at),
        "adds_bos": tokens.adds_bos if tokens.has_bos else None,
        "unknown_tokens": tokens.unknown,
        "truncated_prompts": tokens.truncated,
        "transformers": str(transformers.__version__),
        "torch": str(torch.__version__),
    }

"""The residual stream at one token of each prompt, for every wanted layer in one pass over the prompts.

With `models` and `tokens`, the only home of transformers. What identifies a set of activations is written beside it
and checked when it is read.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sae_transfer import store
from sae_transfer.models import ModelParams, decoder_layers, input_device, load_model, weights_identity
from sae_transfer.records import UserError
from sae_transfer.tokens import Tokens, tokenise

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["ModelParams", "Tokens", "identity", "load_model", "read", "residual_stream", "tokenise", "write"]


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
        progress: whether to show a bar with prompts/s on stderr.
        chat: whether each prompt goes through the chat template [n]; by default as params say.

    Returns:
        {layer: [n, d_model] float32}, rows in the order of the prompts.

    Raises:
        UserError: a prompt is empty, too long, or has more or less than one BOS; NaN or infinity in the stream.
    """
    found = tokenise(model, tokenizer, prompts, params, chat)
    return streams_of(model, found.ids, found.at, params, progress)


def streams_of(
    model: "PreTrainedModel",
    token_ids: Sequence[Sequence[int]],
    at: Sequence[int],
    params: ModelParams,
    progress: bool = False,
) -> dict[int, np.ndarray]:
    """`residual_stream` of n prompts that are token ids already, each read at its index in `at` [n].

    On a GPU nothing in the loop waits for the device: prompts leave from pinned memory and streams arrive in it, both
    while the device computes, so NaN is looked for at the end there, and after each batch elsewhere. (Where attention
    is sdpa, transformers itself looks once a batch whether anything is padded; for Gemma 2, eager, it does not.)
    """
    import torch
    from tqdm import tqdm

    every_layer = decoder_layers(model)[1]
    layers = {layer: every_layer[layer] for layer in params.layers}
    device, n, where = input_device(model), len(token_ids), np.asarray(at)
    waits = device.type != "cuda"
    # In the order of the batches, so that each batch arrives in one piece.
    shape = (len(layers), n, model.config.hidden_size)
    arrived = torch.empty(shape, dtype=torch.float32, pin_memory=not waits)
    order: list[int] = []
    bar = tqdm(total=n, unit=" prompts", desc="residual stream", disable=not progress)
    with bar, torch.inference_mode():
        for rows in batches([len(ids) for ids in token_ids], params.tokens_per_batch):
            tokens, mask = padded([token_ids[row] for row in rows])
            with captured(layers, _sent(where[rows], device)) as caught:
                model(input_ids=_sent(tokens, device), attention_mask=_sent(mask, device))
            batch = arrived[:, len(order) : len(order) + len(rows)]
            for into, layer in zip(batch, layers, strict=True):
                into.copy_(caught[layer], non_blocking=not waits)
            if waits:
                _check_finite(batch.numpy(), rows, params.layers)
            order += rows
            bar.update(len(rows))
    if not waits:
        _synchronise()
        _check_finite(arrived.numpy(), order, params.layers)
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


def batches(lengths: Sequence[int], tokens_per_batch: int) -> Iterator[list[int]]:
    """Rows in batches of like length, the longest first, so that what does not fit in memory fails at once.

    A batch has at most `tokens_per_batch` tokens with its padding; a longer row makes a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    while order:
        size = max(1, tokens_per_batch // lengths[order[0]])
        yield order[:size]
        order = order[size:]


def padded(ids: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and attention mask, int64 [batch, longest], padded on the right whatever the tokenizer's setting.

    The padding is token 0, which every model has: the mask hides it, and some tokenizers name no padding token.
    """
    mask = np.arange(max(len(row) for row in ids)) < np.array([len(row) for row in ids])[:, None]
    tokens = np.zeros(mask.shape, np.int64)
    tokens[mask] = np.concatenate([np.asarray(row, np.int64) for row in ids])
    return tokens, mask.astype(np.int64)


@contextmanager
def captured(layers: Mapping[int, "nn.Module"], at: "torch.Tensor") -> Iterator[dict[int, "torch.Tensor"]]:
    """Within the block, one forward pass: {layer: [batch, d_model] float32} of each layer's output at token `at`.

    Only that position is kept, inside the hook, so that memory does not grow with layers times tokens.

    Raises:
        RuntimeError: a layer ran twice or not at all.
    """
    import torch

    rows = torch.arange(len(at), device=at.device)
    caught: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Callable[[object, object, Any], None]:
        def hook(_module: object, _inputs: object, output: Any) -> None:
            if layer in caught:
                raise RuntimeError(f"layer {layer} ran twice in one forward pass")
            hidden = output[0] if isinstance(output, tuple) else output
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
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    chat: Sequence[bool] | None = None,
) -> dict[str, Any]:
    """Everything that decides the values of a set of activations, as plain JSON."""
    import torch
    import transformers

    tokens = tokenise(model, tokenizer, prompts, params, chat)
    return {
        "model": params.name,
        "source": str(params.identity),
        **weights_identity(params),
        "dtype": params.dtype,
        "device": input_device(model).type,
        "attention": str(model.config._attn_implementation),
        "layers": list(params.layers),
        "position": params.position,
        "chat_template": params.chat_template,
        "chat_prompts": tokens.chat,
        "truncate": params.truncate,
        "batches": {"tokens_per_batch": params.tokens_per_batch, "padding": "right", "order": "longest first"},
        "prompts_sha256": _sha256(list(prompts)),
        "tokens_sha256": _sha256(tokens.ids),  # the tokenizer and the chat template are in it
        "positions_sha256": _sha256(tokens.at),
        "adds_bos": tokens.adds_bos,
        "unknown_tokens": tokens.unknown,
        "truncated_prompts": tokens.truncated,
        "transformers": str(transformers.__version__),
        "torch": str(torch.__version__),
    }


def write(folder: Path, layers: Mapping[int, np.ndarray], identity: Mapping[str, Any], ids: Sequence[str]) -> None:
    """Each layer's [n, d_model] as `layer_<L>.safetensors`, and last the identity that belongs to them all.

    Every file carries the hash of that identity, the row ids included: a file of another run is caught by `read`.
    """
    made = {**identity, "n": len(ids), "ids_sha256": _sha256(list(ids))}
    for layer, stream in layers.items():
        if stream.shape[0] != len(ids):
            raise ValueError(f"layer {layer}: {stream.shape[0]} rows for {len(ids)} ids")
        store.write_arrays(_file(folder, layer), {"residual": np.ascontiguousarray(stream)}, _mark(made, layer))
    store.write_json(folder / "identity.json", made)


def read_identity(folder: Path) -> dict[str, Any]:
    """What `identity` said of the activations in `folder`, with their number of rows `n`.

    Raises:
        UserError: missing or damaged.
    """
    made: dict[str, Any] = store.read_json(folder / "identity.json")
    return made


def read(folder: Path, layer: int, ids: Sequence[str] | None = None) -> np.ndarray:
    """The residual stream after `layer`, [n, d_model] float32, rows in the order of `ids`.

    Raises:
        UserError: the files are missing or damaged, are another run's, or were made for other rows than `ids`.
    """
    made = read_identity(folder)
    if layer not in made["layers"]:
        has = ", ".join(str(known) for known in made["layers"])
        raise UserError(f"layer {layer}: {folder} has {has}; add it to model.layers and run `dvc repro extract`")
    if ids is not None and _sha256(list(ids)) != made["ids_sha256"]:
        raise UserError(f"{folder}: made for {made['n']} other rows than these {len(ids)}; run `dvc repro extract`")
    arrays, about = store.read_arrays(_file(folder, layer))
    if about != _mark(made, layer) or len(arrays["residual"]) != made["n"]:
        raise UserError(f"{_file(folder, layer)}: of another run than identity.json; run `dvc repro extract`")
    return arrays["residual"]


def _file(folder: Path, layer: int) -> Path:
    return folder / f"layer_{layer}.safetensors"


def _mark(made: Mapping[str, Any], layer: int) -> dict[str, str]:
    """What binds a file to its identity. One entry: safetensors writes several in an order that changes by run."""
    mark = {"layer": layer, "ids_sha256": made["ids_sha256"], "identity_sha256": _sha256(made)}
    return {"made_for": json.dumps(mark, sort_keys=True)}


def _sha256(value: object) -> str:
    """Of the value's JSON, which, unlike joined text, cannot run two items into one."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

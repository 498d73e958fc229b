"""The residual stream at the last prompt token, for every wanted layer in one pass over the prompts.

With `models`, the only home of transformers. What identifies a set of activations is written beside it and checked
when it is read.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sae_transfer import store
from sae_transfer.models import ModelParams, decoder_layers, input_device, load_model, weights_identity
from sae_transfer.records import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["ModelParams", "Tokens", "identity", "load_model", "read", "residual_stream", "tokenise", "write"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """The prompts as the model sees them, in their order, and what a reader of the results should know of them."""

    ids: list[list[int]]
    adds_bos: bool
    unknown: int
    truncated: int


def residual_stream(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    params: ModelParams,
    progress: bool = False,
) -> dict[int, np.ndarray]:
    """The output of each wanted layer (resid_post, before any final norm) at each prompt's last token.

    The layers' modules are hooked, since transformers' `hidden_states` ends with the stream after the final norm.
    Padding is on the right, so that a causal model never sees it; encoders have it masked.

    Args:
        model: as `load_model` gives it.
        tokenizer: its tokenizer.
        prompts: n rendered prompts.
        params: the layers, and how prompts are tokenised and batched.
        progress: whether to show a bar with prompts/s on stderr.

    Returns:
        {layer: [n, d_model] float32}, rows in the order of the prompts.

    Raises:
        UserError: a prompt is empty, too long, or has more or less than one BOS; NaN or infinity in the stream.
    """
    token_ids = tokenise(model, tokenizer, prompts, params).ids
    return streams_of(model, token_ids, [len(ids) - 1 for ids in token_ids], params, progress)


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


def tokenise(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str], params: ModelParams
) -> Tokens:
    """The prompts' token ids: special tokens from the tokenizer or, with a chat template, from the template alone.

    A prompt that `truncate` cuts keeps its first special token (BOS, CLS) and its end, where the stream is read.

    Raises:
        UserError: as `residual_stream`, naming the row.
    """
    if empty := [row for row, prompt in enumerate(prompts) if not prompt.strip()]:
        raise UserError(f"row {empty[0]}: empty prompt; every prompt needs text")
    texts = _chat(tokenizer, prompts) if params.chat_template else list(prompts)
    # Chat templates write BOS as text; the tokenizer would add a second one.
    ids = _encode(tokenizer, texts, special=not params.chat_template)
    bos, unknown = tokenizer.bos_token_id, tokenizer.unk_token_id
    adds_bos = bos is not None and _encode(tokenizer, ["a"], special=True)[0][:1] == [bos]
    if adds_bos:
        _check_bos(ids, bos)
    # Tokenizers without unknown words, such as GPT-2's, name a token of another meaning.
    ambiguous = unknown is None or unknown in (bos, tokenizer.eos_token_id)
    n_unknown = 0 if ambiguous else sum(row.count(unknown) for row in ids)
    _check_vocabulary(model, ids)
    limit = min(getattr(model.config, "max_position_embeddings", None) or 10**30, tokenizer.model_max_length)
    ids, truncated = _fit(ids, limit, {bos, tokenizer.cls_token_id}, params.truncate)
    return Tokens(ids, adds_bos, n_unknown, truncated)


def _chat(tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str]) -> list[str]:
    if not tokenizer.chat_template:
        raise UserError(f"model {tokenizer.name_or_path}: no chat template; set model.chat_template: false")
    return [
        tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False)
        for prompt in prompts
    ]


def _encode(tokenizer: "PreTrainedTokenizerBase", texts: list[str], special: bool) -> list[list[int]]:
    if not texts:
        return []
    encoded = tokenizer(
        texts, add_special_tokens=special, padding=False, truncation=False, return_attention_mask=False, verbose=False
    )
    return [list(ids) for ids in encoded["input_ids"]]


def _check_bos(ids: list[list[int]], bos: int) -> None:
    for row, tokens in enumerate(ids):
        if tokens.count(bos) != 1 or tokens[0] != bos:
            raise UserError(
                f"row {row}: {tokens.count(bos)} BOS tokens where the model expects one, at the start; "
                "correct the chat template, or remove the token's text from the prompt"
            )


def _check_vocabulary(model: "PreTrainedModel", ids: list[list[int]]) -> None:
    size = model.get_input_embeddings().num_embeddings
    highest = max((max(tokens) for tokens in ids), default=0)
    if highest >= size:
        raise UserError(f"token {highest}: beyond the model's {size} embeddings; the tokenizer is another model's")


def _fit(ids: list[list[int]], limit: int, first: set[int | None], truncate: bool) -> tuple[list[list[int]], int]:
    """The token ids within the model's context, and how many prompts were cut for it."""
    long = [row for row, tokens in enumerate(ids) if len(tokens) > limit]
    if long and not truncate:
        raise UserError(
            f"row {long[0]}: {len(ids[long[0]])} tokens, the model's context has {limit} "
            f"({len(long)} such rows); shorten the prompt or set model.truncate: true"
        )
    fitted = list(ids)
    for row in long:
        head = ids[row][:1] if ids[row][0] in first else []
        fitted[row] = head + ids[row][len(ids[row]) - limit + len(head) :]
    return fitted, len(long)


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
def captured(layers: Mapping[int, "nn.Module"], last: "torch.Tensor") -> Iterator[dict[int, "torch.Tensor"]]:
    """Within the block, one forward pass: {layer: [batch, d_model] float32} of each layer's output at `last`.

    Only the last position is kept, inside the hook, so that memory does not grow with layers times tokens.

    Raises:
        RuntimeError: a layer ran twice or not at all.
    """
    import torch

    rows = torch.arange(len(last), device=last.device)
    caught: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Callable[[object, object, Any], None]:
        def hook(_module: object, _inputs: object, output: Any) -> None:
            if layer in caught:
                raise RuntimeError(f"layer {layer} ran twice in one forward pass")
            hidden = output[0] if isinstance(output, tuple) else output
            here = hidden.device  # of a model that was spread, a layer may lie elsewhere
            caught[layer] = hidden[rows.to(here), last.to(here)].float()

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
    params: ModelParams, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str]
) -> dict[str, Any]:
    """Everything that decides the values of a set of activations, as plain JSON."""
    import torch
    import transformers

    tokens = tokenise(model, tokenizer, prompts, params)
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
        "truncate": params.truncate,
        "batches": {"tokens_per_batch": params.tokens_per_batch, "padding": "right", "order": "longest first"},
        "prompts_sha256": _sha256(list(prompts)),
        "tokens_sha256": _sha256(tokens.ids),  # the tokenizer and the chat template are in it
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


def read(folder: Path, layer: int, ids: Sequence[str] | None = None) -> np.ndarray:
    """The residual stream after `layer`, [n, d_model] float32, rows in the order of `ids`.

    Raises:
        UserError: the files are missing or damaged, are another run's, or were made for other rows than `ids`.
    """
    made = store.read_json(folder / "identity.json")
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

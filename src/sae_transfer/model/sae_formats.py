"""SAEs in folders of other tools than SAELens, by its readers where they are right; each gives (config, weights).

| tool                | files                              |
|---------------------|------------------------------------|
| SAELens             | cfg.json, sae_weights.safetensors  |
| sparsify            | cfg.json, sae.safetensors          |
| dictionary_learning | config.json, ae.pt                 |
| Gemma Scope         | params.npz                         |
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

DICTIONARIES = {
    *("AutoEncoder", "GatedAutoEncoder", "JumpReluAutoEncoder", "AutoEncoderTopK", "BatchTopKSAE"),
    "MatryoshkaBatchTopKSAE",
}

Read = tuple[dict[str, Any], dict[str, Any]]


def reader(folder: Path) -> Callable[..., Read] | None:
    """What reads an SAE's folder, as a `converter` of SAELens; None where SAELens wrote it.

    Raises:
        FileNotFoundError: it holds the weights of no tool that is known.
    """
    readers = {"sae.safetensors": sparsify, "ae.pt": dictionary_learning, "params.npz": gemma_scope}
    if (folder / "sae_weights.safetensors").exists():
        return None
    for file, read in readers.items():
        if (folder / file).exists():
            return read
    raise FileNotFoundError(
        f"no sae_weights.safetensors (SAELens), {', '.join(readers)} (sparsify, dictionary_learning, Gemma Scope)"
    )


def sparsify(path: str | Path, device: str | None = None, cfg_overrides: Mapping[str, Any] | None = None) -> Read:
    """An SAE of EleutherAI's sparsify, whose folder is named after its hook (`layers.3`).

    SAELens' reader transposes a decoder that is [d_sae, d_in] already, and does not subtract the decoder's bias from
    the input where the decoder is normalised. `SparseCoder.encode` of sparsify always does; both are set right here.
    """
    from sae_lens.loading import pretrained_sae_loaders as loaders

    said = json.loads((Path(path) / "cfg.json").read_text("utf-8"))
    for option in ("transcode", "skip_connection", "signed"):
        if said.get(option):
            raise ValueError(f"not supported: an SAE of sparsify with {option}")
    if said.get("activation", "topk") != "topk":
        raise ValueError(f"not supported: an SAE of sparsify with activation {said['activation']}")
    config, weights = loaders.sparsify_disk_loader(
        path, device=device or "cpu", cfg_overrides=dict(cfg_overrides or {})
    )
    if tuple(weights["W_dec"].shape) != (config["d_sae"], config["d_in"]):
        weights["W_dec"] = weights["W_dec"].T.contiguous()
    return config | {"apply_b_dec_to_input": True}, weights


def sparsify_on_hub(
    repo_id: str, folder_name: str, device: str = "cpu", force_download: bool = False, cfg_overrides: Any = None
) -> tuple[dict[str, Any], dict[str, Any], None]:
    """`sparsify` for SAELens' releases of that tool."""
    from sae_lens.loading import pretrained_sae_loaders as loaders

    loaders.hf_hub_download(repo_id, f"{folder_name}/cfg.json", force_download=force_download)
    weights = loaders.hf_hub_download(repo_id, f"{folder_name}/sae.safetensors", force_download=force_download)
    return *sparsify(Path(weights).parent, device, cfg_overrides), None


def dictionary_learning(
    path: str | Path, device: str | None = None, cfg_overrides: Mapping[str, Any] | None = None
) -> Read:
    """An SAE of dictionary_learning. SAELens takes every one for an SAE of resid_post; here its config must say so."""
    from sae_lens.loading import pretrained_sae_loaders as loaders

    trainer = json.loads((Path(path) / "config.json").read_text("utf-8"))["trainer"]
    if trainer["dict_class"] not in DICTIONARIES:  # SAELens would take it for an AutoEncoder
        raise ValueError(f"not supported: a {trainer['dict_class']} of dictionary_learning")
    place = trainer.get("submodule_name") or "resid_post"
    if not place.startswith("resid_post"):
        raise ValueError(f"not supported: its hook is {place}, which is not on the residual stream")
    with _from_disk(loaders):
        config, weights, _ = loaders.dictionary_learning_sae_huggingface_loader_1(
            "", str(path), device or "cpu", cfg_overrides=dict(cfg_overrides or {})
        )
    return config, weights


@contextmanager
def _from_disk(loaders: Any) -> Iterator[None]:
    """Within the block SAELens takes files from where they are named."""
    download = loaders.hf_hub_download
    loaders.hf_hub_download = lambda repo_id, filename, **_options: filename
    try:
        yield
    finally:
        loaders.hf_hub_download = download


def gemma_scope(path: str | Path, device: str | None = None, cfg_overrides: Mapping[str, Any] | None = None) -> Read:
    """A JumpReLU SAE of Gemma Scope, whose folder is named `layer_9/width_16k/average_l0_88`.

    Its reader in SAELens knows the widths of Google's repositories alone; here the arrays tell them.
    """
    import torch

    named = "/".join(Path(path).resolve().parts[-4:])
    if other := re.search(r"transcoder|-mlp\b|-att\b|embedding", named):
        raise ValueError(f"not supported: {other[0].strip('-')} of Gemma Scope, which is not on the residual stream")
    layer = re.search(r"layer_(\d+)", named)
    with np.load(Path(path) / "params.npz") as arrays:
        weights = {
            re.sub("^w_", "W_", key.lower() if key[:1] == "W" else key): torch.from_numpy(arrays[key]).to(
                device or "cpu"
            )
            for key in arrays
        }
    d_in, d_sae = weights["W_enc"].shape
    config = {
        **{"architecture": "jumprelu", "d_in": d_in, "d_sae": d_sae, "dtype": "float32", "device": device or "cpu"},
        **{"apply_b_dec_to_input": False, "normalize_activations": "none", "context_size": 1024, "prepend_bos": True},
    }
    if layer:
        config["hook_name"] = f"blocks.{layer[1]}.hook_resid_post"
    return config | dict(cfg_overrides or {}), weights

"""The shapes of language models, and what follows from them by arithmetic: parameters, and the work of a forward pass.

Known for the presets' models without the hub, read from config.json for a model on disk.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Family = Literal["gemma2", "gemma3", "llama", "qwen3", "gpt2"]
FAMILIES: dict[str, Family] = {
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "gemma3_text": "gemma3",
    "llama": "llama",
    "qwen3": "qwen3",
    "gpt2": "gpt2",
}


@dataclass(frozen=True, slots=True)
class Vision:
    """The image encoder of a multimodal checkpoint (SigLIP): downloaded with it, never loaded here."""

    n_layers: int = 27
    d_model: int = 1152
    d_mlp: int = 4304
    n_patches: int = 4096
    patch: int = 14


@dataclass(frozen=True, slots=True)
class Shape:
    """A text model's sizes, as its config.json gives them; `tied` says that the LM head is the embedding."""

    family: Family
    n_layers: int
    d_model: int
    d_mlp: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    vocabulary: int
    context: int
    tied: bool = True
    vision: Vision | None = field(default=None)


# As their config.json on the hub says. The parameters that follow are those that the hub counts (tests/test_shapes.py).
KNOWN: dict[str, Shape] = {
    "google/gemma-2-2b": Shape("gemma2", 26, 2304, 9216, 8, 4, 256, 256_000, 8192),
    "google/gemma-2-9b": Shape("gemma2", 42, 3584, 14_336, 16, 8, 256, 256_000, 8192),
    "google/gemma-3-4b": Shape("gemma3", 34, 2560, 10_240, 8, 4, 256, 262_208, 131_072, vision=Vision()),
    "google/gemma-3-12b": Shape("gemma3", 48, 3840, 15_360, 16, 8, 256, 262_208, 131_072, vision=Vision()),
    "google/gemma-3-27b": Shape("gemma3", 62, 5376, 21_504, 32, 16, 128, 262_208, 131_072, vision=Vision()),
    "meta-llama/Llama-3.1-8B": Shape("llama", 32, 4096, 14_336, 32, 8, 128, 128_256, 131_072, tied=False),
    "openai-community/gpt2": Shape("gpt2", 12, 768, 3072, 12, 12, 64, 50_257, 1024),
}
TUNED = ("-it", "-pt", "-Instruct")  # tuning leaves the shape as it is


def known(name: str) -> Shape | None:
    """The shape of a hub model, None where the table lacks it."""
    base = next((name.removesuffix(ending) for ending in TUNED if name.endswith(ending)), name)
    return KNOWN.get(base) or KNOWN.get(f"openai-community/{base}")


def from_config(config: Mapping[str, Any]) -> Shape | None:
    """The shape in a config.json, None for an architecture whose arithmetic is not known here."""
    text = config.get("text_config", config)
    family = FAMILIES.get(text.get("model_type", ""))
    if family is None:
        return None
    if family == "gpt2":
        d, heads = text["n_embd"], text["n_head"]
        d_mlp = text.get("n_inner") or 4 * d
        return Shape(
            "gpt2", text["n_layer"], d, d_mlp, heads, heads, d // heads, text["vocab_size"], text["n_positions"]
        )
    d, heads = text["hidden_size"], text["num_attention_heads"]
    return Shape(
        family,
        text["num_hidden_layers"],
        d,
        text["intermediate_size"],
        heads,
        text.get("num_key_value_heads") or heads,
        text.get("head_dim") or d // heads,
        text["vocab_size"],
        text["max_position_embeddings"],
        tied=text.get("tie_word_embeddings", config.get("tie_word_embeddings", family == "gemma2")),
        vision=_vision(config.get("vision_config")),
    )


def _vision(config: Mapping[str, Any] | None) -> Vision | None:
    if config is None:
        return None
    patches = (config["image_size"] // config["patch_size"]) ** 2
    sizes = (config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"])
    return Vision(*sizes, patches, config["patch_size"])


def layer_parameters(shape: Shape) -> int:
    """Parameters of one decoder layer: attention, MLP, norms and biases."""
    d = shape.d_model
    if shape.family == "gpt2":  # biases everywhere, LayerNorms with scale and shift
        return 4 * d * d + 4 * d + 2 * d * shape.d_mlp + shape.d_mlp + d + 4 * d
    norms = {"gemma2": 4 * d, "gemma3": 4 * d + 2 * shape.d_head, "llama": 2 * d, "qwen3": 2 * d + 2 * shape.d_head}
    return layer_matrices(shape) + norms[shape.family]


def layer_matrices(shape: Shape) -> int:
    """Parameters of one decoder layer that multiply every token: 2 FLOPs each."""
    d = shape.d_model
    attention = 2 * d * shape.d_head * (shape.n_heads + shape.n_kv_heads)
    return attention + (2 if shape.family == "gpt2" else 3) * d * shape.d_mlp


def base_parameters(shape: Shape, n_layers: int | None = None) -> int:
    """Parameters of the base model with its first `n_layers` layers (by default all): what extraction loads."""
    n = shape.n_layers if n_layers is None else n_layers
    embeddings = (shape.vocabulary + (shape.context if shape.family == "gpt2" else 0)) * shape.d_model
    final_norm = shape.d_model * (2 if shape.family == "gpt2" else 1)
    return embeddings + n * layer_parameters(shape) + final_norm


def checkpoint_parameters(shape: Shape) -> int:
    """Parameters of the whole checkpoint: what is downloaded, with the LM head and the image encoder."""
    head = 0 if shape.tied else shape.vocabulary * shape.d_model
    return base_parameters(shape) + head + (_vision_parameters(shape.vision, shape.d_model) if shape.vision else 0)


def _vision_parameters(vision: Vision, d_text: int) -> int:
    d, m = vision.d_model, vision.d_mlp
    layer = 4 * (d * d + d) + 2 * d * m + m + d + 4 * d
    embeddings = 3 * vision.patch**2 * d + d + vision.n_patches * d
    into_text = d * d_text + d
    return vision.n_layers * layer + embeddings + 2 * d + into_text


def forward_flops(shape: Shape, n_layers: int, n_tokens: int, length: float) -> float:
    """FLOPs of `n_tokens` tokens, in prompts of `length`, through the first `n_layers` layers, without the LM head.

    A multiplication and an addition for every matrix entry and token; attention counts all pairs of positions, which
    is what eager attention computes.
    """
    attention = 4 * length * shape.n_heads * shape.d_head
    return n_layers * n_tokens * (2 * layer_matrices(shape) + attention)

"""What a language model weighs and computes, counted on the model itself: built on PyTorch's meta device, no weights.

The presets' models are known without the hub, another once its config.json is on disk.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sae_transfer.core.errors import UserError
from sae_transfer.model import pins
from sae_transfer.model.loading import decoder_layers
from sae_transfer.model.model_params import ModelParams

if TYPE_CHECKING:
    from transformers import PretrainedConfig

SIZES = (
    *("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"),
    *("head_dim", "vocab_size", "max_position_embeddings"),
)
VISION = {  # the image encoder of every multimodal Gemma 3: downloaded with it, never loaded here
    **{"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16},
    **{"image_size": 896, "patch_size": 14, "vision_use_head": False},
}
TUNED = ("-it", "-pt", "-Instruct")  # tuning leaves the shape as it is


def _text(*sizes: int) -> dict[str, Any]:
    return dict(zip(SIZES, sizes, strict=True)) | {"dtype": "bfloat16"}


def _gemma_3(*sizes: int) -> dict[str, Any]:
    text = _text(*sizes, 262_208, 131_072)
    return {"model_type": "gemma3", "dtype": "bfloat16", "text_config": text, "vision_config": VISION}


# As their config.json on the hub says. The parameters that follow are those that the hub counts (test_shapes.py).
KNOWN: dict[str, dict[str, Any]] = {
    "google/gemma-2-2b": {"model_type": "gemma2"} | _text(26, 2304, 9216, 8, 4, 256, 256_000, 8192),
    "google/gemma-2-9b": {"model_type": "gemma2"} | _text(42, 3584, 14_336, 16, 8, 256, 256_000, 8192),
    "google/gemma-3-4b": _gemma_3(34, 2560, 10_240, 8, 4, 256),
    "google/gemma-3-12b": _gemma_3(48, 3840, 15_360, 16, 8, 256),
    "google/gemma-3-27b": _gemma_3(62, 5376, 21_504, 32, 16, 128),
    "meta-llama/Llama-3.1-8B": {"model_type": "llama", "tie_word_embeddings": False}
    | _text(32, 4096, 14_336, 32, 8, 128, 128_256, 131_072),
    "openai-community/gpt2": {"model_type": "gpt2"},  # in float32, and what its class takes by default
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A text model up to its last wanted layer.

    `parameters` is all that extraction loads, `matrices` what of it multiplies every token, `d_mlp` the widest that a
    token becomes, `d_head` the width of one of the `n_heads` queries. `context` is in tokens.
    """

    n_layers: int
    d_model: int
    d_mlp: int
    n_heads: int
    d_head: int
    context: int
    parameters: int
    matrices: int


def config_of(model: ModelParams) -> "PretrainedConfig":
    """The model's configuration, from the table of known models, its folder, or the cache of the hub.

    Raises:
        UserError: it is in none of them, or transformers cannot use it.
    """
    from transformers import AutoConfig

    base = next((model.name.removesuffix(ending) for ending in TUNED if model.name.endswith(ending)), model.name)
    if known := KNOWN.get(base) or KNOWN.get(f"openai-community/{base}"):
        return AutoConfig.for_model(**known)
    pinned = pins.commit(model.name, model.revision)
    try:
        return AutoConfig.from_pretrained(
            model.name,
            revision=pinned or model.revision,
            local_files_only=True,
            trust_remote_code=model.trust_remote_code,
        )
    except (OSError, ValueError, ImportError):
        raise UserError(
            f"model {model.name}: its shape is not known here; no estimate before it is downloaded"
        ) from None


def shape_of(config: "PretrainedConfig", n_layers: int) -> Shape:
    """The shape of the text model's first `n_layers` layers.

    Raises:
        UserError: the architecture is not a stack of layers that `load_model` could cut.
    """
    from transformers import AutoModel

    text = config.get_text_config()
    with _counted(text):
        model = AutoModel.from_config(text, trust_remote_code=False)
        _, layers = decoder_layers(model)
        matrices = [each for layer in layers[:n_layers] for each in layer.parameters() if each.ndim == 2]
        left_out = sum(each.numel() for layer in layers[n_layers:] for each in layer.parameters())
        return Shape(
            n_layers=n_layers,
            d_model=text.hidden_size,
            d_mlp=max(max(each.shape) for each in matrices),
            n_heads=text.num_attention_heads,
            d_head=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
            context=text.max_position_embeddings,
            parameters=model.num_parameters() - left_out,
            matrices=sum(each.numel() for each in matrices),
        )


def checkpoint_bytes(config: "PretrainedConfig") -> int:
    """Bytes of the whole checkpoint: what is downloaded, with the LM head and the image encoder.

    Raises:
        UserError: transformers has no language model of this architecture.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    has_text_alone = config.get_text_config() is config
    with _counted(config):
        auto = AutoModelForCausalLM if has_text_alone else AutoModelForImageTextToText
        n_parameters = auto.from_config(config, trust_remote_code=False).num_parameters()
    return int(n_parameters * (config.dtype or torch.float32).itemsize)


@contextmanager
def _counted(config: "PretrainedConfig") -> Iterator[None]:
    """What is built within needs no memory; an architecture of another kind is said in one line."""
    import torch

    try:
        with torch.device("meta"):
            yield
    except (ValueError, AttributeError) as error:
        raise UserError(f"model {config.name_or_path}: no estimate for a {config.model_type} model") from error


def forward_flops(shape: Shape, n_tokens: int, length: float) -> float:
    """FLOPs of `n_tokens` tokens, in prompts of `length`, through the layers, without the LM head.

    A multiplication and an addition for every matrix entry and token; attention counts all pairs of positions, which
    is what eager attention computes.
    """
    return n_tokens * (2 * shape.matrices + shape.n_layers * 4 * length * shape.n_heads * shape.d_head)

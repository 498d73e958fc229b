"""Loading a Hugging Face model to read its residual stream: no LM head, no layer above the last wanted one.

With `activations` and `tokens`, the only home of transformers, which is imported inside functions: it takes seconds.
"""

import atexit
import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from sae_transfer.core import files
from sae_transfer.core.errors import UserError
from sae_transfer.model import hub, pins
from sae_transfer.model.model_params import ModelParams

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

# Where the decoder layers of Llama, Qwen and Gemma; GPT-2 and Bloom; BERT and RoBERTa lie inside the base model.
LAYER_LISTS = ("layers", "h", "encoder.layer")


# Checkpoints with vision keep the text model under these names; alone they have no prefix, with a head "model.".
TEXT_WEIGHTS = {r"^(?:model\.)?language_model\.(?:model\.)?": ""}


TEXT_WEIGHTS_WITH_HEAD = {r"^(?:model\.)?language_model\.(?:model\.)?": "model."}


# What a checkpoint may hold besides the text model: heads, other senses, and counters that older versions saved.
BESIDES = re.compile(
    r"(?:\w+\.)?(?:lm_head|embed_out|score|classifier|qa_outputs|cls|pooler|mtp|vis\w*|audio\w*|multi_modal_projector|"
    r"embeddings\.position_ids)\b"
)


# The poolers of encoders read the residual stream and do not write to it; many checkpoints lack theirs.
READERS = ("pooler.",)


def load_model(params: ModelParams) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """The base model up to the last wanted layer, ready to run on its device, and its tokenizer.

    Raises:
        UserError: the model is missing, gated or unreachable; a layer lies beyond it; a weight that the residual stream
            passes through is missing, has another shape, or is one that the architecture does not know; no such device.
    """
    return _load(params, head=False)


def load_causal_model(params: ModelParams) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """The whole model with its language modelling head, and its tokenizer. Raises as `load_model`."""
    return _load(params, head=True)


def _load(params: ModelParams, *, head: bool) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    import torch
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    device = available_device(params.device)
    with _explained(params), _quiet():
        source = _source(params)
        tokenizer = AutoTokenizer.from_pretrained(params.name, **source)
        config, total = _text_config(params, source, shortened=not head)
        model, loading = (AutoModelForCausalLM if head else AutoModel).from_pretrained(
            params.name,
            config=config,
            dtype=getattr(torch, params.dtype),
            attn_implementation="eager" if config.model_type == "gemma2" else None,  # soft-capping has no sdpa
            key_mapping=TEXT_WEIGHTS_WITH_HEAD if head else TEXT_WEIGHTS,
            use_safetensors=True,  # never pickle
            ignore_mismatched_sizes=True,  # reported by _check_weights, in one line
            output_loading_info=True,
            **_placement(params),
            **source,
        )
    _check_weights(params.name, model.base_model if head else model, loading, total)
    return (model if params.device_map else model.to(device)).eval(), tokenizer


def load_skeleton(params: ModelParams) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """As `load_model`, but a model without weights: enough to tokenise, and only configuration and tokenizer are read.

    Raises:
        UserError: as `load_model`, weights aside.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    with _explained(params), _quiet():
        source = _source(params)
        tokenizer = AutoTokenizer.from_pretrained(params.name, **source)
        config, _ = _text_config(params, source, shortened=True)
        with torch.device("meta"):
            return AutoModel.from_config(config, trust_remote_code=params.trust_remote_code), tokenizer


def _placement(params: ModelParams) -> dict[str, Any]:
    """The arguments by which accelerate spreads the weights; none where the model lies on one device."""
    if params.device_map is None:
        return {}
    folder = tempfile.TemporaryDirectory(prefix="sae-transfer-")
    atexit.register(folder.cleanup)  # weights on disk are read from there as long as the model runs
    limits = {int(key) if key.isdigit() else key: size for key, size in (params.max_memory or {}).items()}
    return {"device_map": params.device_map, "max_memory": limits or None, "offload_folder": folder.name}


def input_device(model: "PreTrainedModel") -> "torch.device":
    """Where the model takes its prompts: its own device or, for one that was spread, the first that computes."""
    import torch

    spread = getattr(model, "hf_device_map", None)
    places = spread.values() if spread else [model.device]
    return torch.device(next((place for place in places if place not in ("cpu", "disk")), "cpu"))


def decoder_layers(model: "PreTrainedModel") -> tuple[str, list["nn.Module"]]:
    """The name of the list of layers inside the base model, and its layers from the bottom.

    Raises:
        UserError: the architecture keeps its layers elsewhere.
    """
    from torch import nn

    modules = dict(model.named_modules())
    for name in LAYER_LISTS:
        found = modules.get(name)
        if isinstance(found, nn.ModuleList) and len(found) == model.config.num_hidden_layers:
            return name, list(found)
    raise UserError(
        f"model {model.name_or_path}: {type(model).__name__} keeps its layers in none of {', '.join(LAYER_LISTS)}; "
        "choose a decoder such as Gemma, Llama, Qwen or GPT-2, or an encoder such as BERT"
    )


def weights_identity(params: ModelParams) -> dict[str, str | bool | None]:
    """What pins the weights: the commit of a hub model, or the sha256 of a folder's weights and config.

    `pinned` says whether the commit is the one of the pins file, or what an unpinned name stood for when it ran.
    """
    folder = Path(params.name)
    if not folder.is_dir():
        pinned = pins.commit(params.name, params.revision)
        commit = _resolved_revision(params, local_files_only=True)
        return {"revision": commit, "pinned": commit == pinned, "weights_sha256": None}
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), folder / "config.json"]):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return {"revision": None, "pinned": True, "weights_sha256": digest.hexdigest()}


def _source(params: ModelParams) -> dict[str, Any]:
    """The arguments that make config, tokenizer and weights come from one commit."""
    if params.folder is not None and not params.folder.is_dir():  # the hub need not be asked
        if (remedy := files.restore_command(params.folder)) is not None:
            raise files.missing(params.folder, remedy)
        raise UserError(f"model {params.name}: no such folder; correct model.name")
    revision = "main" if params.folder is not None else _resolved_revision(params)
    return {"revision": revision, "trust_remote_code": params.trust_remote_code}


def _resolved_revision(params: ModelParams, local_files_only: bool = False) -> str:
    """The pinned commit; where the model is unpinned, the one that its revision stands for."""
    from transformers.utils.hub import cached_file

    path = cached_file(params.name, "config.json", revision=_wanted(params), local_files_only=local_files_only)
    return hub.commit_of(str(path))


def _wanted(params: ModelParams) -> str:
    return pins.commit(params.name, params.revision) or params.revision or "main"


def _text_config(params: ModelParams, source: dict[str, Any], *, shortened: bool) -> tuple["PretrainedConfig", int]:
    """The text model's config, cut after the last wanted layer or whole, and the number of layers before the cut."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(params.name, **source).get_text_config()
    total, wanted = config.num_hidden_layers, max(params.layers) + 1
    if wanted > total:
        raise UserError(
            f"layer {wanted - 1}: model {params.name} has {total} layers, 0 to {total - 1}; correct model.layers"
        )
    if shortened:
        config.num_hidden_layers = wanted  # GPT-2's config maps it to n_layer
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:wanted]
    config.use_cache = False
    return config, total


def _check_weights(name: str, model: "PreTrainedModel", loading: Mapping[str, Any], total: int) -> None:
    """Refuse weights that transformers would have made up at random, or left out, with only a warning."""
    path, layers = decoder_layers(model)
    missing = sorted(key for key in loading["missing_keys"] if not key.startswith(READERS))
    if missing:
        raise UserError(f"model {name}: {_some(missing)} missing from the weights; fetch the checkpoint again")
    if loading["mismatched_keys"]:
        wrong = sorted(key for key, *_ in loading["mismatched_keys"])
        raise UserError(f"model {name}: {_some(wrong)} of another shape than config.json says; fetch the model again")
    # Anchored, or the layers of a vision tower would count as the text model's.
    layer = re.compile(rf"(?:{model.base_model_prefix}\.)?{re.escape(path)}\.(\d+)\.")
    matches = {key: layer.match(key) for key in loading["unexpected_keys"]}
    unknown = sorted(
        key
        for key, match in matches.items()
        if (not len(layers) <= int(match[1]) < total if match else not BESIDES.match(key))
    )
    if unknown:
        raise UserError(
            f"model {name}: {_some(unknown)} in the weights, unknown to {type(model).__name__}; correct its config.json"
        )


def _some(keys: list[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more"


def available_device(name: str, key: str = "model.device") -> str:
    """The device of this name, or the best there is for `auto`; `key` is where params say it.

    Raises:
        UserError: it is not there.
    """
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(kind for kind, there in available.items() if there)
    if not available.get(name.split(":")[0], False):
        usable = [kind for kind, there in available.items() if there]
        raise UserError(f"device {name}: not available here; set {key} to auto or {' or '.join(usable)}")
    return name


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the report on the weights left out, which we check ourselves, and the bar of their loading."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


@contextmanager
def _explained(params: ModelParams) -> Iterator[None]:
    """Say what to do where transformers and the hub say what went wrong."""
    try:
        yield
    except SafetensorError as error:
        raise UserError(f"model {params.name}: damaged weights ({error}); fetch the model again") from error
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"model {params.name}: {_remedy(params, error)}") from error


def _remedy(params: ModelParams, error: BaseException) -> str:
    if (advice := hub.remedy(params.name, _wanted(params), error)) is not None:
        return advice
    if "trust_remote_code" in str(error):
        return "needs code of its own; read that code, then set model.trust_remote_code: true"
    if "safetensors" in str(error):
        return "no safetensors weights (pickled ones are never loaded); convert them with `save_pretrained`"
    return f"cannot be loaded: {str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}"

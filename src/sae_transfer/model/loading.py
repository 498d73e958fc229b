"""Loading a Hugging Face model to read its residual stream: no LM head, no layer above the last wanted one.

The layers above are dropped from the list of layers right after the class built it, before any weight is read. The
config stays as it is: residual scales, shared keys and kinds of layers are computed from it.

Beside `tokenizer_files`, `tokens` and `extraction`, the only home of transformers, which is imported inside functions:
it takes seconds.
"""

import atexit
import contextlib
import hashlib
import math
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from sae_transfer.core import files
from sae_transfer.core.errors import UserError
from sae_transfer.model import hub, pins, tokenizer_files
from sae_transfer.model.model_params import ModelParams

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

# Checkpoints with vision keep the text model under these names; alone they have no prefix.
WITHIN = r"^(?:model\.)?(?:language_model|text_model)\.(?:model\.)?"
TEXT_WEIGHTS = {WITHIN: ""}


# What a checkpoint of a bare model may hold besides it: heads, and counters that older versions saved.
BESIDES = re.compile(
    r"(?:\w+\.)?(?:lm_head|head|embed_out|score|classifier|qa_outputs|cls|pooler|mtp|vis\w*|audio\w*|multi_modal_projector|"
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
    """The whole model with its language modelling head, and with its other senses where it has any, and its tokenizer.

    Raises:
        UserError: as `load_model`; it has no such head.
    """
    return _load(params, head=True)


def _load(params: ModelParams, *, head: bool) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    from transformers import AutoModel

    device = available_device(params.device)
    with _explained(params), _quiet():
        source = _source(params)
        if tokenizer_files.file_of(params.name, "adapter_config.json", source):  # read only where peft is installed
            raise UserError(f"model {params.name}: not supported: an adapter; merge it into the weights and save them")
        tokenizer = tokenizer_files.load(params.name, source)
        outer = _config(params, source)
        config = outer.get_text_config()
        kind, path = _layer_list(params, config)
        auto = _with_head(params, outer) if head else AutoModel
        with contextlib.nullcontext() if head else _built_up_to(kind, path, max(params.layers)):
            model, loading = auto.from_pretrained(
                params.name,
                config=outer if head else config,
                key_mapping=None if head else TEXT_WEIGHTS,
                ignore_mismatched_sizes=True,  # reported by _check_weights, in one line
                output_loading_info=True,
                **_run_with(params, config),
                **_placement(params),
                **source,
            )
    text = next(each for each in model.modules() if type(each) is kind)
    _check_weights(params, text, loading, config.num_hidden_layers)
    return (model if params.device_map else model.to(device)).eval(), tokenizer


def _with_head(params: ModelParams, config: "PretrainedConfig") -> Any:
    """The class of transformers' that gives a model of this config the head that continues a text."""
    import transformers

    kinds = ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForMultimodalLM")
    for auto in (getattr(transformers, kind) for kind in kinds):
        if type(config) in auto._model_mapping or auto.__name__ in getattr(config, "auto_map", {}):
            return auto
    raise UserError(
        f"model {params.name}: not supported: transformers has no language modelling head for {config.model_type}; "
        "set verbal.abstaining: []"
    )


def load_whole(params: ModelParams) -> "PreTrainedModel":
    """The model as transformers itself loads it, to compare with: no layer dropped, no name of a weight mapped by us.

    Raises:
        UserError: as `load_model`.
    """
    from transformers import AutoConfig, AutoModel

    with _explained(params), _quiet():
        source = _source(params)
        config = AutoConfig.from_pretrained(params.name, **source)
        model: PreTrainedModel = AutoModel.from_pretrained(
            params.name, config=config, **_run_with(params, config.get_text_config()), **source
        )
    return model.to(available_device(params.device)).eval()


def _run_with(params: ModelParams, config: "PretrainedConfig") -> dict[str, Any]:
    """The arguments that decide how a model computes."""
    import torch

    return {
        "dtype": getattr(torch, params.dtype),
        "attn_implementation": "eager" if config.model_type == "gemma2" else None,  # soft-capping has no sdpa
        "use_safetensors": True,  # never pickle
    }


def load_skeleton(params: ModelParams) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """As `load_model`, but a model without weights: enough to tokenise, and only configuration and tokenizer are read.

    Raises:
        UserError: as `load_model`, weights aside.
    """
    with _explained(params), _quiet():
        source = _source(params)
        tokenizer = tokenizer_files.load(params.name, source)
        return _skeleton(params, _config(params, source).get_text_config()), tokenizer


def _skeleton(params: ModelParams, config: "PretrainedConfig") -> "PreTrainedModel":
    import torch
    from transformers import AutoModel

    with torch.device("meta"):
        model: PreTrainedModel = AutoModel.from_config(config, trust_remote_code=params.trust_remote_code)
    return model


def _layer_list(params: ModelParams, config: "PretrainedConfig") -> tuple[type["PreTrainedModel"], str]:
    """The class that transformers takes for the config, and where in it the layers lie."""
    skeleton = _skeleton(params, config)
    return type(skeleton), decoder_layers(skeleton)[0]


@contextmanager
def _built_up_to(kind: type["PreTrainedModel"], path: str, last: int) -> Iterator[None]:
    """Within the block, models of this class are built without the layers above `last` of the list at `path`.

    Their weights are then unknown to the model, and transformers never reads what is unknown.
    """
    whole = kind.__init__

    def build(self: Any, *words: Any, **options: Any) -> None:
        whole(self, *words, **options)
        parent, _, name = path.rpartition(".")
        holder = self.get_submodule(parent)
        setattr(holder, name, getattr(holder, name)[: last + 1])
        self.layer_list = path
        # Zamba's upper layers have the weights of lower ones.
        kept = {key for key, _ in self.named_parameters(remove_duplicate=False)}
        tied = self.all_tied_weights_keys.items()
        self.all_tied_weights_keys = {key: source for key, source in tied if {key, source} <= kept}

    kind.__init__ = build
    try:
        yield
    finally:
        kind.__init__ = whole


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

    It is the only list with as many modules as the config has layers; `load_model` notes it when it drops some.

    Raises:
        UserError: there is no such list, or several.
    """
    from torch import nn

    if (noted := getattr(model, "layer_list", None)) is not None:
        return noted, list(model.get_submodule(noted))
    kind = type(model).__name__
    if model.config.is_encoder_decoder:
        raise UserError(f"model {model.name_or_path}: not supported: {kind} is an encoder with a decoder")
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    found = [name for name, module in lists.items() if len(module) == model.config.num_hidden_layers]
    outer = [name for name in found if not any(name.startswith(f"{other}.") for other in found)]
    if len(outer) != 1:
        raise UserError(
            f"model {model.name_or_path}: not supported: {kind} keeps its layers in no list of their own; choose a "
            "decoder such as Gemma, Llama, Qwen or GPT-2, or an encoder such as BERT"
        )
    return outer[0], list(lists[outer[0]])


def weights_identity(params: ModelParams) -> dict[str, str | bool | None]:
    """What pins the weights: the commit of a hub model, or the sha256 of a folder's weights and config.

    `pinned` says whether the commit is the one of the pins file, or what an unpinned name stood for when it ran.
    """
    folder = Path(params.name)
    if not folder.is_dir():
        pinned = pins.commit(params.name, params.revision, params.root)
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
    return pins.commit(params.name, params.revision, params.root) or params.revision or "main"


def _config(params: ModelParams, source: dict[str, Any]) -> "PretrainedConfig":
    """The model's config; the text model's own is in it where the model has other senses."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(params.name, **source)
    text = config.get_text_config()
    total, wanted = text.num_hidden_layers, max(params.layers) + 1
    if wanted > total:
        raise UserError(
            f"layer {wanted - 1}: model {params.name} has {total} layers, 0 to {total - 1}; correct model.layers"
        )
    text.use_cache = False
    return config


def _check_weights(params: ModelParams, model: "PreTrainedModel", loading: Mapping[str, Any], total: int) -> None:
    """Refuse weights that transformers would have made up at random, or left out, with only a warning."""
    path, layers = decoder_layers(model)
    here, kind = f"model {params.name}: not supported", type(model).__name__
    missing = sorted(key for key in loading["missing_keys"] if not key.startswith(READERS))
    if missing:
        raise UserError(
            f"{here}: {_some(missing)} missing from the weights under the names that {kind} knows; "
            "if the checkpoint is incomplete, fetch it again"
        )
    if loading["mismatched_keys"]:
        wrong = sorted(key for key, *_ in loading["mismatched_keys"])
        raise UserError(f"{here}: {_some(wrong)} of another shape than config.json says")
    # Anchored, or the layers of a vision tower would count as the text model's.
    layer = re.compile(rf"(?:{model.base_model_prefix}\.)?{re.escape(path)}\.(\d+)\.")
    shapes = _checkpoint_shapes(params) if loading["unexpected_keys"] else {}
    beside = _beside(shapes, model.base_model_prefix)
    unknown = []
    for key in sorted(loading["unexpected_keys"] - beside):
        match = layer.match(key)
        dropped = match is not None and len(layers) <= int(match[1]) < total
        if not dropped and not _is_mask(key, shapes) and (match or not BESIDES.match(key)):
            unknown.append(key)
    if unknown:
        raise UserError(f"{here}: {_some(unknown)} in the weights, unknown to {kind}")


def checkpoint_bytes(params: ModelParams) -> int:
    """Bytes of the whole checkpoint's weights in the dtype of params."""
    import torch

    itemsize = getattr(torch, params.dtype).itemsize
    return sum(math.prod(shape) for shape in _checkpoint_shapes(params).values()) * int(itemsize)


def _checkpoint_shapes(params: ModelParams) -> dict[str, list[int]]:
    """Name and shape of every tensor of the checkpoint, from the heads of its files."""
    from safetensors import safe_open

    shapes = dict[str, list[int]]()
    for path in tokenizer_files.folder_of(params.name, _source(params)).glob("*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            shapes |= {key: file.get_slice(key).get_shape() for key in file.keys()}
    return shapes


def _beside(keys: Iterable[str], prefix: str) -> set[str]:
    """The weights of a checkpoint that are not of the text model: heads, other senses.

    The text model's begin with `prefix` or, beside other senses, with `WITHIN`; a bare model's with neither, and then
    nothing can be told apart by its name.
    """
    for start in (WITHIN, rf"^{re.escape(prefix)}\."):
        if any(re.match(start, key) for key in keys):
            return {key for key in keys if not re.match(start, key)}
    return set()


def _is_mask(key: str, shapes: Mapping[str, list[int]]) -> bool:
    """Whether an old checkpoint kept its causal mask, [1, 1, n, n], or the number that stands for what it hides."""
    shape = shapes.get(key)
    if shape is None or not key.endswith("bias"):
        return False
    square = len(shape) > 2 and shape[-1] == shape[-2] and set(shape[:-2]) == {1}
    return square or (key.endswith("masked_bias") and len(shape) < 2)


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
    except (
        TypeError,
        AttributeError,
        KeyError,
        IndexError,
        RuntimeError,
    ) as error:  # of a class that is built or filled
        cause = next(iter(str(error).strip().splitlines()), "")
        said = f"transformers cannot build it from its config.json ({type(error).__name__}: {cause})"
        raise UserError(f"model {params.name}: not supported: {said}") from error


def _remedy(params: ModelParams, error: BaseException) -> str:
    if (advice := hub.remedy(params.name, _wanted(params), error)) is not None:
        return advice
    if "Unrecognized configuration class" in str(error):
        return "not supported: transformers has no base model of its architecture"
    if "instantiate the backend tokenizer" in str(error):
        return "no tokenizer files (tokenizer.json); put them beside its weights"
    if "trust_remote_code" in str(error):
        return "needs code of its own; read that code, then set model.trust_remote_code: true"
    if "safetensors" in str(error):
        return "no safetensors weights (pickled ones are never loaded); convert them with `save_pretrained`"
    return f"cannot be loaded: {str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}"

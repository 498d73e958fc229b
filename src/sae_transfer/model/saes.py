"""Loading an SAE so that its features are what they were in training, or not at all.

With `features`, the only home of sae_lens, which is imported inside functions since it takes seconds.
"""

import importlib.util
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from sae_transfer.core.errors import UserError
from sae_transfer.core.files import missing
from sae_transfer.model import hub, pins, sae_formats
from sae_transfer.model.loading import available_device
from sae_transfer.model.model_params import SaeParams

FOLDED = ("none", "layer_norm", "constant_norm_rescale")  # what SAELens applies by itself when it encodes


# Names that SAELens and TransformerLens give to models whose hub name is another.
ALIASES = {"gpt2-small": "gpt2", "meta-llama-3.1-8b-instruct": "llama-3.1-8b-instruct"}


# How TransformerLens may rewrite or run a model without a change of its residual stream. Other options do change it.
HARMLESS = {
    *("fold_ln", "fold_value_biases", "center_unembed", "refactor_factored_attn_matrices", "n_devices", "device"),
    *("device_map", "dtype", "torch_dtype", "attn_implementation", "trust_remote_code", "low_cpu_mem_usage", "token"),
    *("cache_dir", "local_files_only", "use_safetensors", "move_to_device", "default_padding_side"),
    *("default_prepend_bos", "hf_model"),
}


# What SAELens' metadata name beside those: the model's revision, which `check_fits` compares, and its mean.
SEEN_TO = {"revision", "checkpoint_value", "center_writing_weights"}


# Encoders of one row at a time with features of at least 0, as SAELens calls them. BatchTopK is a JumpReLU there.
ARCHITECTURES = {"standard", "gated", "topk", "jumprelu", "matching_pursuit"}


# Parts of a hook's name before its list of layers: the text model, under any of its names, and nothing else.
TEXT_MODEL = r"(?:(?:model|transformer|gpt_neox|language_model|text_model|decoder|encoder|backbone|bert|roberta)\.)*"
AFTER, BEFORE = {"", ".output", ".hook_resid_post", ".hook_out"}, {".hook_resid_pre", ".hook_in", ".input"}


def load_sae(name: str, params: SaeParams) -> Any:
    """The SAE in float32, checked against the layer that params name.

    Its `cfg.metadata.revision` is the commit that it came from, `pinned` whether it was asked for; None for a folder.

    Args:
        name: its name in params, for messages.
        params: where it is; of a release the pinned commit is loaded.

    Raises:
        UserError: not found, damaged, gated or out of reach; its hook is at another place; or it expects activations
            that neither SAELens nor `as_trained` would make.
    """
    if params.path is not None and not params.path.is_dir():
        raise _not_found(name, params.path)
    device = available_device(params.device, f"saes.{name}.device")
    pinned = None if params.release is None else pins.commit(repository(params.release), root=params.root)
    from sae_lens import SAE
    from safetensors import SafetensorError

    try:
        with _downloads(pinned) as commits, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"\s*This SAE has non-empty")  # _check refuses, or as_trained
            if params.path is not None:
                read = sae_formats.reader(params.path)
                sae = SAE.load_from_disk(
                    params.path, device=device, dtype="float32", **({} if read is None else {"converter": read})
                )
            else:
                ours = {"converter": sae_formats.sparsify_on_hub} if _is_sparsify(params.release) else {}
                sae = SAE.from_pretrained(params.release, params.id, device=device, dtype="float32", **ours)
    except UnpicklingError:
        source = f"{params.release} {params.id}"
        raise UserError(
            f"saes.{name}: {source} holds more than weights, which is never loaded; choose another"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"saes.{name}: cannot load {_explained(params, pinned, error)}") from None
    metadata = sae.cfg.metadata
    metadata.revision = _one_commit(name, commits)
    metadata.pinned = None if params.release is None else pinned is not None
    _check_kind(name, sae)
    _check(name, params, sae.cfg)
    _check_rows(name, sae.eval())
    return sae


def _is_sparsify(release: str | None) -> bool:
    return bool(registry().get(release or "", {}).get("conversion_func") == "sparsify")


def _explained(params: SaeParams, pinned: str | None, error: Exception) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    cause = " ".join(lines[:2]) if isinstance(error, RuntimeError) else lines[0]  # PyTorch names the key in the second
    if params.release is None:
        return f"{params.path}: {cause}; restore it or correct params.yaml"
    advice = hub.remedy(repository(params.release), pinned or "main", error)
    return f"{params.release} {params.id}: {advice or f'{cause}; restore it or correct params.yaml'}"


@contextmanager
def _downloads(revision: str | None) -> Iterator[list[str]]:
    """Within the block SAELens downloads from this commit; yields the commits of the files that it took.

    SAELens has no argument for a revision. It also asks the hub for the shapes in a Gemma 3 SAE even where the file is
    in the cache: here they are read from the file.
    """
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from safetensors import safe_open

    download, shapes = loaders.hf_hub_download, loaders.get_safetensors_tensor_shapes
    commits: list[str] = []

    def pinned_download(*words: Any, **options: Any) -> str:
        path = str(download(*words, **options | {"revision": revision}))
        commits.append(hub.commit_of(path))
        return path

    def shapes_of_file(repo_id: str, filename: str) -> dict[str, list[int]]:
        with safe_open(pinned_download(repo_id, filename), framework="numpy") as file:
            return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}

    loaders.hf_hub_download, loaders.get_safetensors_tensor_shapes = pinned_download, shapes_of_file
    try:
        yield commits
    finally:
        loaders.hf_hub_download, loaders.get_safetensors_tensor_shapes = download, shapes


def _one_commit(name: str, commits: list[str]) -> str | None:
    if len(set(commits)) > 1:
        raise UserError(
            f"saes.{name}: its files are of the commits {' and '.join(sorted(set(commits)))}; "
            "pin one with `sae-transfer preset pin`"
        )
    return commits[0] if commits else None


def _not_found(name: str, path: Path) -> UserError:
    if path.parts[:1] == ("models",):
        return UserError(f"saes.{name}: {missing(path)}")
    return UserError(f"saes.{name}: {path}: no such folder; correct its path in params.yaml")


def _check_kind(name: str, sae: Any) -> None:
    """Refuses what is no SAE of single rows."""
    kind, metadata = str(sae.cfg.architecture()), sae.cfg.metadata
    out = metadata.hook_name_out or metadata.hf_hook_name_out
    read = metadata.hook_name or metadata.hf_hook_name
    if (
        "transcoder" in kind
        or (out is not None and out != read)
        or getattr(sae.cfg, "d_out", sae.cfg.d_in) != sae.cfg.d_in
    ):
        raise UserError(
            f"saes.{name}: not supported: a transcoder ({kind}); it does not reconstruct what it reads; choose an SAE"
        )
    if kind not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise UserError(f"saes.{name}: not supported: architecture {kind}; choose one of {known}")


def _check_rows(name: str, sae: Any) -> None:
    """Tries the SAE on random rows: each alone gives the features that it has among others, and none is negative."""
    import torch

    rows = torch.randn(4, sae.cfg.d_in, generator=torch.Generator().manual_seed(0)).to(sae.W_dec.device)
    try:
        with torch.inference_mode():
            together = sae.encode(rows)
            alone = torch.cat([sae.encode(rows[[i]]) for i in range(len(rows))])
            shape = sae.decode(together).shape
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"saes.{name}: not supported: it does not encode rows of its width ({cause})") from None
    if shape != rows.shape or together.shape != (len(rows), sae.cfg.d_sae):
        raise UserError(f"saes.{name}: not supported: its features or reconstructions have another width than it says")
    if bool((together < 0).any()):
        raise UserError(f"saes.{name}: not supported: its features can be negative")
    if not torch.allclose(together, alone, rtol=1e-3, atol=1e-3 * float(together.abs().max())):
        raise UserError(
            f"saes.{name}: not supported: a row's features depend on the rows beside it, as in training; "
            "save it for inference with SAELens"
        )


def _check(name: str, params: SaeParams, cfg: Any) -> None:
    metadata, normalisation, reshaped = cfg.metadata, cfg.normalize_activations, cfg.reshape_activations
    hook = metadata.hook_name or metadata.hf_hook_name
    layer = params.layer if hook is None else layer_of(hook)
    if layer is None or metadata.hook_head_index is not None or reshaped not in (None, "none"):
        raise UserError(
            f"saes.{name}: not supported: its hook is {hook}, which is not on the residual stream of the text model; "
            "choose another SAE"
        )
    if layer < 0:
        raise UserError(f"saes.{name}: its hook is {hook}, the embeddings before any layer; choose a later hook")
    if layer != params.layer:
        raise UserError(
            f"saes.{name}: its hook is {hook}, but params say layer {params.layer}; set layer to {layer}, "
            "whose output the hook reads"
        )
    if normalisation not in FOLDED:
        raise UserError(
            f"saes.{name}: not supported: normalize_activations = {normalisation} is not folded into its weights, so "
            "its features would be wrong; fold it with SAELens before saving"
        )
    asked = {option for option, on in (metadata.model_from_pretrained_kwargs or {}).items() if on}
    if unknown := sorted(asked - HARMLESS - SEEN_TO):
        raise UserError(
            f"saes.{name}: not supported: it was trained on a model rewritten by {', '.join(unknown)}, which is not "
            "done here; choose another SAE"
        )


def layer_of(hook: str) -> int | None:
    """The layer whose output a hook reads: blocks.3.hook_resid_post and model.layers.3 give 3, resid_pre of 3 gives 2.

    The stream before layer 0 is the embeddings: -1. None for a hook that is not on the text model's residual stream
    between layers.
    """
    match = re.fullmatch(rf"{TEXT_MODEL}(?:blocks|layers|layer|h)\.(\d+)(.*)", hook)
    if match is None or match[2] not in AFTER | BEFORE:
        return None
    return int(match[1]) - (match[2] in BEFORE)


def centres(sae: Any) -> bool:
    """Whether the SAE expects rows whose mean over d_model is 0."""
    return bool((sae.cfg.metadata.model_from_pretrained_kwargs or {}).get("center_writing_weights"))


def as_trained(sae: Any, activations: NDArray[np.float32]) -> NDArray[np.float32]:
    """The residual stream [n, d_model] as the SAE knows it.

    TransformerLens' `center_writing_weights` takes the mean over d_model from all that is written to the stream, so an
    SAE that was trained with it (gpt2-small-res-jb) expects every row's mean to be 0. GPT-2 itself cannot tell: each
    layer's norm takes the mean away.
    """
    if not centres(sae):
        return activations
    centred: NDArray[np.float32] = activations - activations.mean(axis=1, keepdims=True)
    return centred


def check_fits(
    name: str, params: SaeParams, sae: Any, made: Mapping[str, Any], revision: str | None = None
) -> dict[str, Any]:
    """What the features' file says of the SAE, after a check that it belongs to the model of these activations.

    Args:
        name: its name in params.
        params: where it is.
        sae: what `load_sae` gave.
        made: the identity of the activations (`extraction.identity`).
        revision: `model.revision` of params.

    Raises:
        UserError: its metadata name another model or revision than the activations', or expect a BOS that the prompts
            lack and the tokenizer has; not with `override`. A model that is a folder has no name to compare: there only
            layer and width are checked.
    """
    metadata = sae.cfg.metadata
    trained_on, on_hub = metadata.model_name, made["weights_sha256"] is None
    problems = []
    if on_hub and trained_on is not None and _short(trained_on) != _short(made["model"]):
        problems.append(f"was trained on {trained_on}, but model.name is {made['model']}")
    trained_at = _revision(metadata)
    if on_hub and trained_at is not None and trained_at not in (revision, made["revision"]):
        problems.append(
            f"was trained on revision {trained_at}, but model.revision is {revision}; set it to {trained_at}"
        )
    if (
        metadata.prepend_bos and made["adds_bos"] is False
    ):  # None: there is no BOS, and loaders that say so say too much
        problems.append("was trained on prompts that start with BOS, and these do not; set model.prepend_bos: true")
    if problems and not params.override:
        raise UserError(
            f"saes.{name}: it {' and '.join(problems)}; choose what belongs together, or set saes.{name}.override: true"
        )
    return {
        "path": None if params.path is None else str(params.path),
        "release": params.release,
        "id": params.id,
        "revision": metadata.revision,
        "pinned": metadata.pinned,
        "hook": metadata.hook_name or metadata.hf_hook_name,
        "trained_on": trained_on,
        "context_size": metadata.context_size,
        "model": made["model"],
        "override": [problem.partition(";")[0] for problem in problems],
    }


def _revision(metadata: Any) -> str | None:
    """The revision of the model that an SAE was trained on; TransformerLens counts Pythia's steps."""
    asked = metadata.model_from_pretrained_kwargs or {}
    step = asked.get("checkpoint_value")
    return asked.get("revision") or (None if step is None else f"step{step}")


def _short(model: str) -> str:
    """A model's name without its organisation, in one spelling."""
    name = model.rpartition("/")[2].casefold()
    return ALIASES.get(name, name)


@cache
def registry() -> Mapping[str, Any]:
    """SAELens' table of releases, read from its file: {release: {repo_id, model, saes: [{id, path, ...}]}}."""
    found = importlib.util.find_spec("sae_lens")
    assert found is not None
    assert found.submodule_search_locations is not None
    table = Path(found.submodule_search_locations[0]) / "pretrained_saes.yaml"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one, where there is one, is five times as fast
    loaded: Mapping[str, Any] = yaml.load(table.read_text("utf-8"), Loader=loader)
    return loaded


def repository(release: str) -> str:
    """The hub repository of a release; a release that SAELens does not list is a repository itself."""
    return str(registry()[release]["repo_id"]) if "/" not in release and release in registry() else release

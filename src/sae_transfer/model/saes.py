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
from sae_transfer.model import hub, pins
from sae_transfer.model.loading import available_device
from sae_transfer.model.model_params import SaeParams

FOLDED = ("none", "layer_norm", "constant_norm_rescale")  # what SAELens applies by itself when it encodes


# Names that SAELens and TransformerLens give to models whose hub name is another.
ALIASES = {"gpt2-small": "gpt2", "meta-llama-3.1-8b-instruct": "llama-3.1-8b-instruct"}


# How TransformerLens may rewrite a model without a change of its residual stream. Its other options do change it.
HARMLESS = {"fold_ln", "fold_value_biases", "center_unembed", "n_devices", "device", "device_map", "dtype"}


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
    pinned = None if params.release is None else pins.commit(repository(params.release))
    from sae_lens import SAE
    from safetensors import SafetensorError

    try:
        with _downloads(pinned) as commits, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"\s*This SAE has non-empty")  # _check refuses, or as_trained
            if params.path is not None:
                sae = SAE.load_from_disk(params.path, device=device, dtype="float32")
            else:
                sae = SAE.from_pretrained(params.release, params.id, device=device, dtype="float32")
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
    _check(name, params, metadata, sae.cfg.normalize_activations)
    return sae.eval()


def _explained(params: SaeParams, pinned: str | None, error: Exception) -> str:
    cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
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


def _check(name: str, params: SaeParams, metadata: Any, normalisation: str) -> None:
    hook = metadata.hook_name or metadata.hf_hook_name
    layer = params.layer if hook is None else layer_of(hook)
    if layer is None:
        raise UserError(f"saes.{name}: its hook is {hook}, which is not on the residual stream; choose another SAE")
    if layer < 0:
        raise UserError(f"saes.{name}: its hook is {hook}, the embeddings before any layer; choose a later hook")
    if layer != params.layer:
        raise UserError(
            f"saes.{name}: its hook is {hook}, but params say layer {params.layer}; set layer to {layer}, "
            "whose output the hook reads"
        )
    if normalisation not in FOLDED:
        raise UserError(
            f"saes.{name}: normalize_activations = {normalisation} is not folded into its weights, so its features "
            "would be wrong; fold it with SAELens before saving"
        )
    asked = {option for option, on in (metadata.model_from_pretrained_kwargs or {}).items() if on}
    if unknown := sorted(asked - HARMLESS - {"center_writing_weights"}):
        raise UserError(
            f"saes.{name}: it was trained on a model rewritten by {', '.join(unknown)}, which is not done here; "
            "choose another SAE"
        )


def layer_of(hook: str) -> int | None:
    """The layer whose output a hook reads: blocks.3.hook_resid_post and model.layers.3 give 3, resid_pre of 3 gives 2.

    The stream before layer 0 is the embeddings: -1. None for a hook that is not on the residual stream between layers.
    """
    match = re.search(r"(?:blocks|layers|h)\.(\d+)(.*)$", hook)
    if match is None or match[2] not in ("", ".output", ".hook_resid_post", ".hook_resid_pre"):
        return None
    return int(match[1]) - match[2].endswith("pre")


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


def check_fits(name: str, params: SaeParams, sae: Any, made: Mapping[str, Any]) -> dict[str, Any]:
    """What the features' file says of the SAE, after a check that it belongs to the model of these activations.

    Args:
        name: its name in params.
        params: where it is.
        sae: what `load_sae` gave.
        made: the identity of the activations (`activations.identity`).

    Raises:
        UserError: its metadata name another model than the activations', or expect a BOS that the prompts lack; not
            with `override`. A model that is a folder has no name to compare: there only layer and width are checked.
    """
    metadata = sae.cfg.metadata
    trained_on, on_hub = metadata.model_name, made["weights_sha256"] is None
    problems = []
    if on_hub and trained_on is not None and _short(trained_on) != _short(made["model"]):
        problems.append(f"was trained on {trained_on}, but model.name is {made['model']}")
    if metadata.prepend_bos and not made["adds_bos"]:
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
        "model": made["model"],
        "override": [problem.partition(";")[0] for problem in problems],
    }


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

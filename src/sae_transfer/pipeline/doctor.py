"""Is this machine ready for a study? Each check reports in one line what it found, and never raises."""

import platform
import shutil
import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sae_transfer.core.errors import UserError
from sae_transfer.core.memory import available_memory
from sae_transfer.pipeline import checks, versioning
from sae_transfer.pipeline.params import Params
from sae_transfer.pipeline.study_cost import Estimate

OLDEST_PYTHON = (3, 11)
STORE = Path("mlruns/mlflow.db")
PULL = "`dvc pull models.dvc` brings the demo's"
State = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; a `problem` keeps the study from running, a `note` is good to know."""

    check: str
    state: State
    text: str


def findings(model: str, device: str, cost: Estimate | None) -> list[Finding]:
    """All checks for a study with this model (a folder or a hub id) on this device (cpu, cuda, mps).

    Args:
        model: `model.name` of the params.
        device: where the model will run.
        cost: the estimate, None where there is none.
    """
    local = Path(model).is_dir()
    return [
        _python(),
        _torch(device, cost),
        _memory(device, cost),
        _disk(cost),
        Finding("model", "ok", f"{model} lies on the disk; the hub is not needed") if local else _hub(model),
        _token(ask=not local),
        _dvc_remote(),
        _mlflow_store(),
    ]


def untestable(params: Params) -> list[Finding]:
    """What the study's rows cannot tell, however long it runs: the notes of `check`."""
    try:
        return [Finding("rows", "note", notice.sentence) for notice in checks.notes(params)]
    except UserError as error:
        return [Finding("rows", "note", f"not read ({error})")]


def measured_flops_per_s(device: str, dtype: str, seconds: float = 0.3) -> float:
    """FLOP/s of a large matrix product on the device, the best of as many as fit in `seconds`."""
    import torch

    n = 1024 if device == "cpu" else 8192
    a = torch.ones((n, n), dtype=getattr(torch, dtype), device=device)
    best, end = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < end:
        start = time.perf_counter()
        a @ a
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


def _python() -> Finding:
    old = sys.version_info < OLDEST_PYTHON
    return Finding("Python", "problem" if old else "ok", platform.python_version() + (", needs 3.11" if old else ""))


def _torch(device: str, cost: Estimate | None) -> Finding:
    import torch

    text = f"{torch.__version__} on {device}"
    if device == "cpu":
        return Finding("PyTorch", "ok", f"{text}, {torch.get_num_threads()} threads")
    if not device.startswith("cuda"):
        return Finding("PyTorch", "ok", text)
    free, total = torch.cuda.mem_get_info(device)
    text = f"{text}: {torch.cuda.get_device_name(device)}, {size(free)} of {size(total)} free"
    if cost and cost.device > free:
        return Finding(
            "PyTorch", "problem", f"{text}, needs {size(cost.device)}; set model.device_map: auto to spread it"
        )
    return Finding("PyTorch", "ok", text)


def _memory(device: str, cost: Estimate | None) -> Finding:
    free = available_memory()
    if cost and cost.host > free:
        advice = "; a smaller model.tokens_per_batch needs less" if device == "cpu" else ""
        return Finding("memory", "problem", f"{size(free)} free, needs about {size(cost.host)}{advice}")
    return Finding("memory", "ok", f"{size(free)} free")


def _disk(cost: Estimate | None) -> Finding:
    free = shutil.disk_usage(".").free
    if cost and cost.disk > free:
        return Finding("disk", "problem", f"{size(free)} free here, needs {size(cost.disk)}; make room")
    return Finding("disk", "ok", f"{size(free)} free here")


def _hub(model: str) -> Finding:
    """Whether the hub gives the model to this token. Texts of exceptions are never shown: some repeat headers."""
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        cached = isinstance(try_to_load_from_cache(model, "config.json"), str)
    except HFValidationError:
        return Finding("model", "problem", f"{model}: no such folder, and no name that the hub could know; {PULL}")
    page = f"https://huggingface.co/{model}"
    if constants.HF_HUB_OFFLINE:
        return _unreachable(model, cached, "HF_HUB_OFFLINE is set")
    try:
        HfApi(endpoint=constants.ENDPOINT).auth_check(model)
    except GatedRepoError:
        return Finding("model", "problem", f"{model} is gated; accept its licence at {page}, then set HF_TOKEN")
    except RepositoryNotFoundError:
        return Finding("model", "problem", f"no model {model} on the hub; correct model.name, or set HF_TOKEN")
    except Exception as error:  # whatever a network can do: proxies, certificates, timeouts, errors of the server
        return _unreachable(model, cached, type(error).__name__)
    return Finding("model", "ok", f"{model}: the hub gives access" + (", and it is in the cache" if cached else ""))


def _unreachable(model: str, cached: bool, why: str) -> Finding:
    if cached:
        return Finding("model", "note", f"Hugging Face hub unreachable ({why}); {model} is in its cache")
    return Finding(
        "model",
        "problem",
        f"Hugging Face hub unreachable ({why}), and {model} is not in its cache; where there is a network run "
        f"`hf download {model}`",
    )


def _token(ask: bool) -> Finding:
    from huggingface_hub import HfApi, constants, get_token

    token = get_token()
    if token is None:
        return Finding("hub token", "note", "none; gated models need one (HF_TOKEN, or `hf auth login`)")
    if not ask or constants.HF_HUB_OFFLINE:
        return Finding("hub token", "ok", "one is set, not tried")
    try:
        HfApi(endpoint=constants.ENDPOINT).whoami(token=token)
    except Exception as error:  # as in _hub
        refused = getattr(getattr(error, "response", None), "status_code", None) in (401, 403)
        if refused:
            return Finding(
                "hub token", "problem", "one is set, but the hub refuses it; make a new one and set HF_TOKEN"
            )
        return Finding("hub token", "note", f"one is set, not tried ({type(error).__name__})")
    return Finding("hub token", "ok", "one is set, and the hub accepts it")


def _dvc_remote() -> Finding:
    try:
        remote = versioning.default_remote()
    except UserError as error:
        return Finding("DVC remote", "problem", str(error))
    if remote is None:
        return Finding(
            "DVC remote", "note", "none of your own; `dvc remote add -d NAME ADDRESS` lets others reuse caches"
        )
    return Finding("DVC remote", "ok", f"{remote[0]}")


def _mlflow_store() -> Finding:
    if any(STORE.parent.glob("[0-9]*/meta.yaml")):
        return Finding(
            "MLflow store", "problem", f"{STORE.parent} holds an old file store; move its numbered folders away"
        )
    if not STORE.exists():
        return Finding("MLflow store", "note", f"{STORE} is not there yet; the first run makes it")
    try:
        with closing(sqlite3.connect(f"file:{STORE}?mode=ro", uri=True)) as store:
            n = store.execute("select count(*) from runs").fetchone()[0]
    except sqlite3.Error as error:
        return Finding(
            "MLflow store", "problem", f"{STORE} cannot be read ({error}); move it away, the next run makes it"
        )
    return Finding("MLflow store", "ok", f"{STORE}, {n} runs")


def size(n_bytes: float) -> str:
    """Bytes as a person reads them."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.1f} MB"


def describe(cost: Estimate, flops_per_s: float) -> list[tuple[str, str]]:
    """The estimate in words: (what, how much)."""
    seconds = ", ".join(f"{stage} {duration(value)}" for stage, value in cost.seconds.items())
    tokens = f"{cost.tokens:,} tokens" if cost.counted else f"about {cost.tokens:,} tokens (`data check` counts them)"
    return [
        ("prompts", f"{cost.prompts:,}, {tokens}"),
        ("download", size(cost.download)),
        (
            "disk",
            f"{size(cost.disk)} (activations {size(cost.activations)}, features {size(cost.features)}, kept twice)",
        ),
        ("device memory", f"{size(cost.device)} (weights {size(cost.model)})"),
        ("host memory", f"{size(cost.host)} (SAEs {size(cost.saes)})"),
        ("forward passes", f"{cost.flops / 1e12:,.1f} TFLOP at {flops_per_s / 1e12:.2f} TFLOP/s of matrix products"),
        ("time", f"{duration(sum(cost.seconds.values()))} after downloading: {seconds}"),
    ]


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

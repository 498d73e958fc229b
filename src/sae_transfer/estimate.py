"""What a study will cost, by arithmetic on its params alone: bytes to download, to keep and to hold, FLOPs and seconds.

Bytes of weights and of activations are exact. Prompts' lengths, active features, working memory and seconds are
assumptions, stated here; benchmarks/RESULTS.md compares the seconds with measured runs.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_transfer import config, shapes, store
from sae_transfer.datasets import DatasetParams
from sae_transfer.features import SaeParams
from sae_transfer.models import ModelParams
from sae_transfer.probes import ProbeParams
from sae_transfer.records import UserError, closest
from sae_transfer.resampling import BootstrapParams
from sae_transfer.shapes import Shape
from sae_transfer.transfer import TransferParams

FLOAT32 = 4
DTYPE_BYTES = {"float32": 4, "bfloat16": 2}

# Tokens of a prompt, mean and longest. SQuAD, IDK and BoolQ_3L have 911, 111 and 661 characters on average, at most
# 4,184, 246 and 4,823; English has about four characters a token, and the template adds some.
TOKENS = {"squad": (250, 1100), "idk": (50, 100), "boolq": (190, 1300), "table": (60, 300)}
L0 = 100  # active features a row
ENTRY = 8  # bytes of an active feature on disk

# Seconds, measured on one core of the machine in benchmarks/RESULTS.md.
START = 1.5  # Python with pandas and scikit-learn, and DVC's own work for a stage
START_TRANSFORMERS, START_SAELENS = 7.0, 6.5
READ = 5e8  # bytes/s of weights, from disk to where they are used
LAYER_FIT = 4.8e-8  # times n_train ** 1.7 times d_model: the residual probe, its cross-validation and its controls
SAE_FIT = 3e-5  # times n_train times L0: the search over single features, and what builds on it
CELL = 7e-9  # times resamples, test rows and probes
FITS, RANKINGS = 70, 50  # single fits in a LAYER_FIT, rankings in a SAE_FIT
ANALYSES, PAIRED = 16, 2.5  # stages; seconds of all analyses for an SAE and a dataset
REPORT = 15.0
EFFICIENCY = 0.5  # of the rate of a large matrix product, in a forward pass
ENCODE_BYTES, MEMORY_RATE = 40, 5e9  # bytes moved for each SAE feature of a row, active or not; bytes/s

# Host memory of a process that has imported torch, transformers and SAELens; the buffers of SAE encoding.
PROCESS, ENCODE_BUFFERS = 1_000_000_000, 3 * 256 * 2**20

WIDTHS = {"16k": 2**14, "32k": 2**15, "65k": 2**16, "131k": 2**17, "262k": 2**18, "524k": 2**19, "1m": 2**20}
RELEASE_WIDTHS = {
    "gpt2-small-res-jb": 24_576,
    "gpt2-small-resid-post-v5-32k": 2**15,
    "llama-3.1-8b-instruct-andyrdt": 2**17,
    "goodfire-llama-3.1-8b-instruct": 2**16,
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the study of one params file will cost.

    `download` is what the hub sends: the whole checkpoint and the SAEs, but nothing that lies on disk. `model` and
    `saes` are the weights as they are loaded, `activations` and `features` what stays on disk. `device` is the memory
    where the model runs, `host` that of the machine: the larger of extraction and encoding.
    """

    prompts: int
    tokens: int
    download: int
    model: int
    saes: int
    activations: int
    features: int
    device: int
    host: int
    flops: float
    seconds: dict[str, float]

    @property
    def disk(self) -> int:
        """Bytes of disk: downloads, and what is kept twice, in DVC's cache and in the workspace."""
        return self.download + 2 * (self.activations + self.features)


@dataclass(frozen=True, slots=True)
class Plan:
    """What of the params decides the cost."""

    model: ModelParams
    shape: Shape
    saes: dict[str, SaeParams]
    widths: dict[str, int]
    datasets: dict[str, DatasetParams]
    probe: ProbeParams
    transfer: TransferParams
    bootstrap: BootstrapParams

    @property
    def n_layers(self) -> int:
        """How many layers run."""
        return max(self.model.layers) + 1

    @property
    def weights(self) -> int:
        return shapes.base_parameters(self.shape, self.n_layers) * DTYPE_BYTES[self.model.dtype]

    @property
    def sae_sizes(self) -> dict[str, int]:
        return {name: sae_bytes(self.shape.d_model, width) for name, width in self.widths.items()}

    @property
    def rows(self) -> int:
        return sum(map(n_prompts, self.datasets.values()))

    @property
    def tokens(self) -> int:
        return sum(n_prompts(dataset) * TOKENS[dataset.loader][0] for dataset in self.datasets.values())

    @property
    def flops(self) -> float:
        lengths = ((n_prompts(dataset), TOKENS[dataset.loader][0]) for dataset in self.datasets.values())
        return sum(shapes.forward_flops(self.shape, self.n_layers, n * length, length) for n, length in lengths)


def plan(params: Mapping[str, Any]) -> Plan:
    """The study's plan.

    Raises:
        UserError: the model's shape or an SAE's width is neither in the tables nor on disk; wrong params.
    """
    model = config.section(params, ModelParams, "model")
    saes = {name: config.section(params, SaeParams, "saes", name) for name in params["study"]["saes"]}
    datasets = {name: config.section(params, DatasetParams, "datasets", name) for name in params["study"]["datasets"]}
    for name, dataset in datasets.items():
        if dataset.loader not in TOKENS:
            raise UserError(f"dataset {name}: loader {dataset.loader} is unknown; {closest(dataset.loader, TOKENS)}")
    return Plan(
        model,
        shape_of(model),
        saes,
        {name: sae_width(name, sae) for name, sae in saes.items()},
        datasets,
        config.section(params, ProbeParams, "probe"),
        config.section(params, TransferParams, "transfer"),
        config.section(params, BootstrapParams, "bootstrap"),
    )


def of(plan: Plan, flops_per_s: float, on_cpu: bool = True) -> Estimate:
    """The estimate for a machine whose matrix products run at `flops_per_s` on the model's device."""
    largest_sae = max(plan.sae_sizes.values(), default=0)
    device = plan.weights + working_memory(plan)
    return Estimate(
        prompts=plan.rows,
        tokens=plan.tokens,
        download=_download(plan),
        model=plan.weights,
        saes=sum(plan.sae_sizes.values()),
        activations=plan.rows * len(plan.model.layers) * plan.shape.d_model * FLOAT32,
        features=plan.rows * len(plan.saes) * L0 * ENTRY,
        device=device,
        host=PROCESS + max(device if on_cpu else 0, 2 * largest_sae + ENCODE_BUFFERS),
        flops=plan.flops,
        seconds=_seconds(plan, flops_per_s),
    )


def shape_of(model: ModelParams) -> Shape:
    """The model's shape, from its config.json on disk or from the table of known models.

    Raises:
        UserError: it is in neither.
    """
    path = Path(model.name) / "config.json"
    shape = shapes.from_config(store.read_json(path)) if path.is_file() else shapes.known(model.name)
    if shape is None:
        raise UserError(f"model {model.name}: its shape is not known here; no estimate before it is downloaded")
    return shape


def sae_width(name: str, sae: SaeParams) -> int:
    """d_sae, from the SAE's cfg.json on disk, or from its id or release.

    Raises:
        UserError: none of them tells.
    """
    if sae.path is not None and (sae.path / "cfg.json").is_file():
        return int(store.read_json(sae.path / "cfg.json")["d_sae"])
    told = re.search(r"width_(\w+?)(?:_|/|$)", sae.id or "")
    width = WIDTHS.get(told[1]) if told else RELEASE_WIDTHS.get(sae.release or "")
    if width is None:
        raise UserError(f"saes.{name}: its width is not known here; no estimate before it is downloaded")
    return width


def sae_bytes(d_model: int, d_sae: int) -> int:
    """Bytes of an SAE in float32: encoder, decoder, both biases and a threshold for each feature."""
    return FLOAT32 * (2 * d_model * d_sae + 2 * d_sae + d_model)


def n_prompts(dataset: DatasetParams) -> int:
    return (dataset.n_train.total + dataset.n_test.total) * (1 + len(set(dataset.variations) - {dataset.template}))


def working_memory(plan: Plan) -> int:
    """Bytes beside the weights at the peak of a forward pass, roughly: one layer's largest tensors for one batch.

    Attention scores of eager attention stand in memory as they are and, for the softmax, in float32.
    """
    shape, size = plan.shape, DTYPE_BYTES[plan.model.dtype]
    longest = min(max(TOKENS[dataset.loader][1] for dataset in plan.datasets.values()), shape.context)
    n = max(plan.model.tokens_per_batch, longest)
    scores = n * longest * shape.n_heads * (size + FLOAT32)
    mlp = 3 * n * shape.d_mlp * size
    return max(scores, mlp) + 4 * n * shape.d_model * (size + FLOAT32)


def _download(plan: Plan) -> int:
    # Checkpoints on the hub are in bfloat16, GPT-2's in float32.
    stored = FLOAT32 if plan.shape.family == "gpt2" else DTYPE_BYTES["bfloat16"]
    weights = 0 if Path(plan.model.name).is_dir() else shapes.checkpoint_parameters(plan.shape) * stored
    return weights + sum(size for name, size in plan.sae_sizes.items() if plan.saes[name].path is None)


def _seconds(plan: Plan, flops_per_s: float) -> dict[str, float]:
    """Seconds of each kind of stage, one after the other as `dvc repro` runs them; downloads are not in it."""
    n_layers, n_saes, n_datasets = len(plan.model.layers), len(plan.saes), len(plan.datasets)
    width, probe = sum(plan.widths.values()), plan.probe
    sizes = [n for dataset in plan.datasets.values() for n in {dataset.n_train.total, probe.matched_n_train}]
    tested = sum(dataset.n_test.total * (1 + len(dataset.variations)) for dataset in plan.datasets.values())
    probe_seconds = CELL * plan.transfer.resamples * tested * len(sizes)
    products = 4 * plan.rows * plan.shape.d_model * width / flops_per_s
    return {
        "prepare": n_datasets * START,
        "extract": n_datasets * (START_TRANSFORMERS + plan.weights / READ) + plan.flops / (EFFICIENCY * flops_per_s),
        "encode": n_datasets * (START_SAELENS + sum(plan.sae_sizes.values()) / READ)
        + products
        + plan.rows * width * ENCODE_BYTES / MEMORY_RATE,
        "fit": n_layers * sum(START + LAYER_FIT * n**1.7 * plan.shape.d_model for n in sizes)
        + n_saes * sum(START + SAE_FIT * n * L0 for n in sizes),
        "transfer": n_layers * (START + probe_seconds * (2 + probe.repeats))
        + n_saes * (START + probe_seconds * (probe.top_k + len(probe.N) + 2 * probe.repeats)),
        "analyses": _analyses_seconds(plan),
        "report": REPORT,
    }


def _analyses_seconds(plan: Plan) -> float:
    """Seconds from the directions of features to MLflow; the fits that are repeated decide where a model is large."""
    n_layers, n_saes, n_train = (
        len(plan.model.layers),
        len(plan.saes),
        [d.n_train.total for d in plan.datasets.values()],
    )
    draws = plan.bootstrap.resamples + plan.bootstrap.seeds
    fits = sum(LAYER_FIT * n**1.7 * plan.shape.d_model for n in n_train)
    rankings = sum(SAE_FIT * n * L0 / RANKINGS for n in n_train)
    started = ANALYSES * START + START_SAELENS + START_TRANSFORMERS
    # calibration trains the probes of every fold once more
    again = n_layers * fits * (1 + draws / FITS) + n_saes * rankings * draws
    return float(started + n_saes * len(n_train) * PAIRED + again)

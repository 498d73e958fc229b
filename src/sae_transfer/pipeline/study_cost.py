"""What a study will cost, by arithmetic on its params alone: bytes to download, to keep and to hold, FLOPs and seconds.

Bytes of weights and of activations are exact. Prompts' lengths, active features, working memory and seconds are
assumptions, stated here; benchmarks/RESULTS.md compares the seconds with measured runs.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from sae_transfer.core import files
from sae_transfer.core.errors import UserError
from sae_transfer.data.loaders.loader_registry import LOADERS, DatasetParams
from sae_transfer.model import shapes
from sae_transfer.model.model_params import SaeParams
from sae_transfer.model.shapes import Shape
from sae_transfer.pipeline import counted_tokens, stage
from sae_transfer.pipeline.counted_tokens import Counted
from sae_transfer.pipeline.params import Params

FLOAT32 = 4
DTYPE_BYTES = {"float32": 4, "bfloat16": 2}

L0 = 100  # active features a row
ENTRY = 8  # bytes of an active feature on disk

# Seconds, measured on one core of the machine in benchmarks/RESULTS.md.
START = 1.0  # of a stage: Python with pandas and scikit-learn, and DVC's own work
START_TRANSFORMERS, START_SAELENS = 7.0, 6.5
READ = 5e8  # bytes/s of weights, from disk to where they are used
LAYER_FIT = 4.8e-8  # times n_train ** 1.7 times d_model: the residual probe, its cross-validation and its controls
SAE_FIT = 3e-5  # times n_train times L0: the search over single features, and what builds on it
CELL = 7e-9  # times resamples, test rows and probes
FITS, RANKINGS = 70, 50  # single fits in a LAYER_FIT, rankings in a SAE_FIT
PAIRED = 2.5  # seconds of all analyses for an SAE and a dataset
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

    `tokens` are `counted` by `data check`, or roughly what such datasets have. `download` is what the hub sends: the
    whole checkpoint and the SAEs, but nothing that lies on disk. `model` and `saes` are the weights as they are loaded,
    `activations` and `features` what stays on disk. `device` is the memory where the model runs, `host` that of the
    machine: the larger of extraction and encoding.
    """

    prompts: int
    tokens: int
    counted: bool
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
    """What decides the cost: the params, the model's shape, and assumptions."""

    params: Params
    shape: Shape
    widths: dict[str, int]  # d_sae by SAE
    counted: dict[str, Counted]  # tokens by dataset, of those that `data check` has counted

    @property
    def names(self) -> tuple[str, ...]:
        return self.params.study.datasets

    @property
    def datasets(self) -> list[DatasetParams]:
        return [self.params.datasets[name] for name in self.names]

    @property
    def weights(self) -> int:
        return self.shape.parameters * DTYPE_BYTES[self.params.model.dtype]

    @property
    def sae_sizes(self) -> dict[str, int]:
        return {name: sae_bytes(self.shape.d_model, width) for name, width in self.widths.items()}

    @property
    def rows(self) -> int:
        return sum(map(n_prompts, self.datasets))

    @property
    def tokens(self) -> dict[str, Counted]:
        """By dataset that the model runs on, as counted or else roughly."""
        run_on = [name for name in self.names if not self.params.datasets[name].activations]
        return {name: self.counted.get(name) or _roughly(self.params.datasets[name]) for name in run_on}

    @property
    def flops(self) -> float:
        return sum(
            shapes.forward_flops(self.shape, of.total, of.total / n_prompts(self.params.datasets[name]))
            for name, of in self.tokens.items()
        )


def estimate_cost(params: Params, flops_per_s: float, on_cpu: bool = True) -> Estimate:
    """The estimate of a study for a machine whose matrix products run at `flops_per_s` on the model's device.

    Raises:
        UserError: the model's shape or an SAE's width is neither in the tables nor on disk.
    """
    config = shapes.config_of(params.model)
    plan = Plan(
        params,
        shapes.shape_of(config, max(params.model.layers) + 1),
        {name: sae_width(name, params.saes[name]) for name in params.study.saes},
        counted_tokens.read(params),
    )
    model_download = 0 if Path(params.model.name).is_dir() else shapes.checkpoint_bytes(config)
    sae_downloads = [size for name, size in plan.sae_sizes.items() if params.saes[name].path is None]
    largest_sae = max(plan.sae_sizes.values(), default=0)
    device = plan.weights + working_memory(plan)
    return Estimate(
        prompts=plan.rows,
        tokens=sum(of.total for of in plan.tokens.values()),
        counted=plan.counted.keys() == set(plan.names),
        download=model_download + sum(sae_downloads),
        model=plan.weights,
        saes=sum(plan.sae_sizes.values()),
        activations=plan.rows * len(params.model.layers) * plan.shape.d_model * FLOAT32,
        features=plan.rows * len(plan.widths) * L0 * ENTRY,
        device=device,
        host=PROCESS + max(device if on_cpu else 0, 2 * largest_sae + ENCODE_BUFFERS),
        flops=plan.flops,
        seconds=_seconds(plan, flops_per_s),
    )


def sae_width(name: str, sae: SaeParams) -> int:
    """d_sae, from the SAE's cfg.json on disk, or from its id or release.

    Raises:
        UserError: none of them tells.
    """
    if sae.path is not None and (sae.path / "cfg.json").is_file():
        return int(files.read_json(sae.path / "cfg.json")["d_sae"])
    told = re.search(r"width_(\w+?)(?:_|/|$)", sae.id or "")
    width = WIDTHS.get(told[1]) if told else RELEASE_WIDTHS.get(sae.release or "")
    if width is None:
        raise UserError(f"saes.{name}: its width is not known here; no estimate before it is downloaded")
    return width


def sae_bytes(d_model: int, d_sae: int) -> int:
    """Bytes of an SAE in float32: encoder, decoder, both biases and a threshold for each feature."""
    return FLOAT32 * (2 * d_model * d_sae + 2 * d_sae + d_model)


def _roughly(dataset: DatasetParams) -> Counted:
    mean, longest = LOADERS[dataset.loader].tokens
    return Counted(n_prompts(dataset) * mean, longest)


def n_prompts(dataset: DatasetParams) -> int:
    return (dataset.n_train.total + dataset.n_test.total) * (1 + len(set(dataset.variations) - {dataset.template}))


def working_memory(plan: Plan) -> int:
    """Bytes beside the weights at the peak of a forward pass, roughly: one layer's largest tensors for one batch.

    Attention scores of eager attention stand in memory as they are and, for the softmax, in float32.
    """
    shape, size = plan.shape, DTYPE_BYTES[plan.params.model.dtype]
    longest = min(max(of.longest for of in plan.tokens.values()), shape.context)
    n = max(plan.params.model.tokens_per_batch, longest)
    scores = n * longest * shape.n_heads * (size + FLOAT32)
    mlp = 3 * n * shape.d_mlp * size
    return max(scores, mlp) + 4 * n * shape.d_model * (size + FLOAT32)


def _seconds(plan: Plan, flops_per_s: float) -> dict[str, float]:
    """Seconds of the stages, one after the other as `dvc repro` runs them with this many processes; no downloads."""
    n_layers, n_saes, jobs = len(plan.params.model.layers), len(plan.widths), stage.jobs(plan.params.jobs)
    width, probe = sum(plan.widths.values()), plan.params.probe
    sizes = [n for dataset in plan.datasets for n in {dataset.n_train.total, probe.matched_n_train}]
    tested = sum(dataset.n_test.total * (1 + len(dataset.variations)) for dataset in plan.datasets)
    probe_seconds = CELL * plan.params.transfer.resamples * tested * len(sizes)
    products = 4 * plan.rows * plan.shape.d_model * width / flops_per_s
    return {
        "prepare": START,
        "extract and judge": 2 * (START_TRANSFORMERS + plan.weights / READ) + plan.flops / (EFFICIENCY * flops_per_s),
        "encode": START_SAELENS
        + sum(plan.sae_sizes.values()) / READ
        + products
        + plan.rows * width * ENCODE_BYTES / MEMORY_RATE,
        "fit": START
        + n_layers * sum(LAYER_FIT * n**1.7 * plan.shape.d_model for n in sizes) / jobs
        + n_saes * sum(SAE_FIT * n * L0 for n in sizes) / jobs,
        "transfer": START
        + n_layers * probe_seconds * (2 + probe.repeats) / jobs
        + n_saes * probe_seconds * (probe.top_k + len(probe.N) + 2 * probe.repeats) / jobs,
        "analyses": 3 * START + _analyses_seconds(plan) / jobs,
        "report": REPORT,
    }


def _analyses_seconds(plan: Plan) -> float:
    """Seconds of one process from resampling to MLflow; the fits that are repeated decide where a model is large."""
    n_layers, n_saes = len(plan.params.model.layers), len(plan.widths)
    n_train = [dataset.n_train.total for dataset in plan.datasets]
    draws = plan.params.bootstrap.resamples + plan.params.bootstrap.seeds
    fits = sum(LAYER_FIT * n**1.7 * plan.shape.d_model for n in n_train)
    rankings = sum(SAE_FIT * n * L0 / RANKINGS for n in n_train)
    again = n_layers * fits * draws / FITS + n_saes * rankings * draws
    return float(n_saes * len(n_train) * PAIRED + again)

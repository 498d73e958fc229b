"""Extraction and SAE encoding at the shape of Gemma 2 9B: throughput against the machine's own matrix products.

Random weights are made on the device; nothing is downloaded. 2,000 prompts have SQuAD's distribution of lengths; layers
20 and 31 are read, so that 32 of the 42 layers run, as in the study. Run on a GPU, or tiny on a CPU:
  PYTHONPATH=src python benchmarks/gpu_extract.py
  PYTHONPATH=src python benchmarks/gpu_extract.py --tiny
Goals: 55% of the measured matrix-product rate in the extraction; the whole SQuAD study under 2 minutes after loading.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from transformers import AutoModel, Gemma2Config

from sae_transfer.model import encoding, extraction, shapes
from sae_transfer.model.model_params import ModelParams
from sae_transfer.pipeline import doctor

T = TypeVar("T")
GOAL_UTILISATION = 0.55
# Quantiles of a SQuAD prompt's length in characters (half of the dev set, template `default`), at four a token.
QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1)
CHARACTERS = (216, 557, 657, 797, 1040, 1665, 2899, 4184)
L0 = 100


@dataclass(frozen=True)
class Run:
    """What is measured: a model up to its last wanted layer, which layers, how many prompts, the width of the SAE."""

    config: Gemma2Config
    layers: tuple[int, ...]
    n_prompts: int
    d_sae: int
    tokens_per_batch: int


def config(**sizes: int) -> Gemma2Config:
    """Gemma 2 9B's configuration, but for these sizes."""
    return Gemma2Config(**shapes.KNOWN["google/gemma-2-9b"] | sizes, use_cache=False)


GEMMA_2_9B = Run(config(num_hidden_layers=32), (20, 31), 2000, 2**17, 16_384)
TINY = Run(
    config(
        num_hidden_layers=3,
        hidden_size=64,
        intermediate_size=128,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        vocab_size=500,
    ),
    (1, 2),
    12,
    256,
    2048,
)


@dataclass(frozen=True)
class Measured:
    """Seconds and rates; `utilisation` is the share of the matrix-product rate that the model's FLOPs reach."""

    device: str
    product_flops_per_s: float
    extract_seconds: float
    prompts_per_s: float
    tokens_per_s: float
    utilisation: float
    peak_bytes: int
    encode_seconds: float
    l0: float


def prompts(run: Run, rng: np.random.Generator) -> list[list[int]]:
    """Token ids [n_prompts] of random words, behind a BOS."""
    lengths = np.interp(rng.random(run.n_prompts), QUANTILES, CHARACTERS) / 4 + 15
    return [[2, *rng.integers(10, run.config.vocab_size, int(length)).tolist()] for length in lengths]


def random_model(run: Run, device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
    """The base model, as `load_model` would cut it, made on the device."""
    with device:
        model = AutoModel.from_config(run.config, dtype=dtype, attn_implementation="eager")
    return model.eval()


def random_sae(run: Run, rows: np.ndarray, device: torch.device) -> object:
    """A JumpReLU SAE in float32 whose common threshold gives about L0 active features a row."""
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig

    sae = JumpReLUSAE(
        JumpReLUSAEConfig(d_in=run.config.hidden_size, d_sae=run.d_sae, device=str(device), dtype="float32")
    )
    with torch.no_grad():
        for weight in (sae.W_enc, sae.W_dec):
            weight.normal_(std=run.config.hidden_size**-0.5)
        sample = torch.from_numpy(rows[:64]).to(device) @ sae.W_enc
        sae.threshold.fill_(torch.topk(sample.flatten(), len(sample) * L0).values[-1].item())
    return sae.eval()


def timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - start


def extract(
    run: Run, ids: list[list[int]], device: torch.device, dtype: str
) -> tuple[dict[int, np.ndarray], float, int]:
    """The streams of one pass over all prompts, its seconds, and the peak of device memory; after a warm-up."""
    params = ModelParams(name="random", layers=run.layers, dtype=dtype, tokens_per_batch=run.tokens_per_batch)
    model = random_model(run, device, getattr(torch, dtype))
    last = [len(row) - 1 for row in ids]
    extraction.streams_of(model, ids[:64], last[:64], params)
    if device.type != "cuda":
        return *timed(lambda: extraction.streams_of(model, ids, last, params)), 0
    torch.cuda.reset_peak_memory_stats()
    found = timed(lambda: extraction.streams_of(model, ids, last, params, progress=True))
    return *found, torch.cuda.max_memory_allocated()


def measure(run: Run, device: torch.device) -> Measured:
    """The rate of matrix products, the extraction, and the encoding of one layer."""
    dtype = "bfloat16" if device.type == "cuda" else "float32"
    ids = prompts(run, np.random.default_rng(0))
    rate = doctor.measured_flops_per_s(str(device), dtype, seconds=2.0 if device.type == "cuda" else 0.1)
    streams, seconds, peak = extract(run, ids, device, dtype)
    shape = shapes.shape_of(run.config, max(run.layers) + 1)
    flops = sum(shapes.forward_flops(shape, len(row), len(row)) for row in ids)
    rows = streams[run.layers[0]]
    sae = random_sae(run, rows, device)
    encoded, encode_seconds = timed(lambda: encoding.encode(sae, "random", rows))
    return Measured(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        product_flops_per_s=rate,
        extract_seconds=seconds,
        prompts_per_s=len(ids) / seconds,
        tokens_per_s=sum(map(len, ids)) / seconds,
        utilisation=flops / seconds / rate,
        peak_bytes=peak,
        encode_seconds=encode_seconds,
        l0=encoded.health.l0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny shape, to see that it runs")
    parser.add_argument("--tokens-per-batch", type=int, help="padded tokens of a batch")
    chosen = parser.parse_args()
    run = TINY if chosen.tiny else GEMMA_2_9B
    run = replace(run, tokens_per_batch=chosen.tokens_per_batch or run.tokens_per_batch)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not chosen.tiny:
        raise SystemExit("no CUDA device here; --tiny runs on a CPU")
    found = measure(run, device)
    print(f"{found.device}, matrix products {found.product_flops_per_s / 1e12:.2f} TFLOP/s\n")
    print("| what | measured |\n|---|---|")
    print(f"| extraction, {run.n_prompts:,} prompts, layers {run.layers} | {found.extract_seconds:.1f} s |")
    print(f"| prompts/s, tokens/s | {found.prompts_per_s:.0f}, {found.tokens_per_s:,.0f} |")
    met = "met" if found.utilisation >= GOAL_UTILISATION else "missed"
    print(f"| share of the matrix-product rate (goal {GOAL_UTILISATION:.0%}) | {found.utilisation:.0%}, {met} |")
    print(f"| peak device memory | {found.peak_bytes / 1e9:.1f} GB |")
    print(f"| encoding one layer, d_sae {run.d_sae:,}, L0 {found.l0:.0f} | {found.encode_seconds:.1f} s |")


if __name__ == "__main__":
    main()

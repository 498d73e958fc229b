"""The benchmarks that need a machine which tests do not have run here at a tiny shape."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import coverage
import gpu_extract
import resampling
import search


def test_the_gpu_benchmark_runs_tiny_on_a_cpu(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_extract.py", "--tiny"])
    gpu_extract.main()
    out = capsys.readouterr().out
    assert "| extraction, 12 prompts, layers (1, 2) |" in out
    assert "share of the matrix-product rate" in out


def test_its_numbers_are_consistent():
    found = gpu_extract.measure(gpu_extract.TINY, torch.device("cpu"))
    assert found.prompts_per_s * found.extract_seconds == pytest.approx(12)
    assert 0 < found.utilisation < 1
    assert 30 < found.l0 < 200


def test_its_prompts_have_the_lengths_of_squad():
    lengths = [len(ids) for ids in gpu_extract.prompts(gpu_extract.GEMMA_2_9B, np.random.default_rng(1))]
    assert len(lengths) == 2000
    assert 180 < np.median(lengths) < 250
    assert max(lengths) < 1100


def test_the_other_benchmarks_run_tiny(monkeypatch, capsys):
    tiny = {"N_ROWS": 60, "D_SAE": 300, "L0": 20, "REPEATS": 1}
    for module in (search, resampling):
        for name, value in tiny.items():
            monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(search.search, "MIN_ROWS", 10)  # which it changes
    search.main()
    monkeypatch.setattr(search.search, "MIN_ROWS", 10)
    monkeypatch.setattr(resampling, "D_MODEL", 80)
    monkeypatch.setattr(resampling, "DIRECTIONS", 10)
    resampling.main()
    monkeypatch.setattr(coverage, "SIMULATIONS", 2)
    monkeypatch.setattr(coverage, "RESAMPLES", 20)
    coverage.main()
    out = capsys.readouterr().out
    assert "| features ranked |" in out
    assert "SAE, d_sae = 300, L0 = 20: " in out
    assert "\nAUC, pairs of one label\n" in out

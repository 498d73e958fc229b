"""The benchmarks that need a machine which tests do not have run here at a tiny shape."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import gpu_extract


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

"""docs/demo.md says what was measured when the demo model and its SAEs were trained."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/demo.md").read_text()
DEMO = ROOT / "models/demo"
needs_demo = pytest.mark.skipif(not DEMO.exists(), reason="models/demo is not pulled: dvc pull models.dvc")


@needs_demo
def test_the_demos_accuracies_are_those_that_were_measured_and_meet_the_bar():
    measured = json.loads((DEMO / "accuracy.json").read_text())
    for prompts, domains in measured.items():
        cells = " | ".join(f"{yes:.2f} / {no:.2f}" for yes, no in domains.values())
        assert f"| {prompts} | {cells} |" in PAGE
        assert min(min(pair) for pair in domains.values()) >= 0.9


@needs_demo
def test_the_demos_sae_figures_are_those_that_were_measured_and_meet_the_bar():
    for name, quality in json.loads((DEMO / "saes.json").read_text()).items():
        every, last = quality["every"], quality["last"]
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}`"))
        assert f"{every['l0']:.1f} / {last['l0']:.1f}" in row
        assert f"{every['explained_variance']:.3f} / {last['explained_variance']:.3f}" in row
        for part in (every, last):
            assert part["l0"] <= 32
            assert part["explained_variance"] >= 0.9

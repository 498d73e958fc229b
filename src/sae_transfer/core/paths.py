"""Where a study's files lie, relative to the project's root: a folder a stage."""

from pathlib import Path

INPUTS = Path("artifacts/inputs.json")
PROMPTS = Path("artifacts/prompts")
ACTIVATIONS = Path("artifacts/activations")
VERBAL = Path("artifacts/verbal")
FEATURES = Path("artifacts/features")
PROBES = Path("artifacts/probes")
TRANSFER = Path("artifacts/transfer")
RESAMPLES = Path("artifacts/resamples")
ANALYSES = Path("artifacts/analyses")
RESULTS = Path("results")
REPORT = Path("report")
FIGURES = REPORT / "figures"

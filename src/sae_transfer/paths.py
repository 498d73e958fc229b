"""Where the pipeline's files lie, relative to the project's root."""

from pathlib import Path

PROMPTS = Path("artifacts/prompts")
ACTIVATIONS = Path("artifacts/activations")
FEATURES = Path("artifacts/features")
DIRECTIONS = Path("artifacts/directions")
PROBES = Path("artifacts/probes")
BOOTSTRAP = Path("artifacts/bootstrap")
SCORES = Path("artifacts/scores")
RESULTS = Path("results")
TRANSFER = RESULTS / "transfer"
REPORT = Path("report")
FIGURES = REPORT / "figures"

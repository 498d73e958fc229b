"""Where the pipeline's files lie, relative to the project's root."""

from pathlib import Path

PROMPTS = Path("artifacts/prompts")
ACTIVATIONS = Path("artifacts/activations")
FEATURES = Path("artifacts/features")
PROBES = Path("artifacts/probes")
SCORES = Path("artifacts/scores")
DIRECTIONS = Path("artifacts/directions")
BOOTSTRAP = Path("artifacts/bootstrap")
PREDICTORS = Path("artifacts/predictors")
RESULTS = Path("results")
TRANSFER = RESULTS / "transfer"
REPORT = Path("report")
FIGURES = REPORT / "figures"

"""Where the pipeline's files lie, relative to the project's root."""

from pathlib import Path

PROMPTS = Path("artifacts/prompts")
ACTIVATIONS = Path("artifacts/activations")
FEATURES = Path("artifacts/features")
DIRECTIONS = Path("artifacts/directions")
PROBES = Path("artifacts/probes")
SCORES = Path("artifacts/scores")
BOOTSTRAP = Path("artifacts/bootstrap")
PREDICTORS = Path("artifacts/predictors")
RESULTS = Path("results")
TRANSFER = RESULTS / "transfer"
BOOTSTRAP_TABLES = RESULTS / "bootstrap"
LENGTH = RESULTS / "length.csv"
REPORT = Path("report")
FIGURES = REPORT / "figures"

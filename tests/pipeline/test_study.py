"""A study read from Python: what it gives, and what it does not need."""

import subprocess
import sys

HEAVY = ("torch", "transformers", "sae_lens", "huggingface_hub", "mlflow", "optuna", "dvc", "matplotlib")
READ = f"""
import sys, time
from sae_transfer import Study, rank_features
study = Study.open({{folder!r}})
space = study.space("narrow_3")
rows = study.rows(space, "people")
print(len(rows), len(study.probes(space, "people")), len(study.table("transfer")) > 100)
print([name for name in {HEAVY!r} if name in sys.modules])
print(time.process_time())
"""


def test_a_reader_starts_fast_and_without_a_model(project):
    """The time of the processor, which does not depend on what else runs."""
    words = [sys.executable, "-c", READ.format(folder=str(project.folder))]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    read, heavy, seconds = said
    assert read.startswith("60 ")
    assert read.endswith("True")
    assert heavy == "[]"
    assert float(seconds) < 1.5

"""What versions.yaml promises: a stage with the same version makes the same of the same inputs.

These stages depend on no code, so that a reworded message extracts nothing again. Whoever changes what one of them
makes raises its version; this test tells them.
"""

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from sae_transfer.core import files, paths
from sae_transfer.core.space import residual_stream, sae_features
from sae_transfer.pipeline.study import Study

GOLDEN = Path(__file__).with_name("recipes.json")
VERSIONS = Path(__file__).parents[2] / "versions.yaml"
DATASET, LAYER, SAE = "people", residual_stream(3), sae_features("narrow_3", 3)
HOW = "raise the stage's version in versions.yaml, delete tests/pipeline/recipes.json and run this test twice"


def exact(table):
    return hashlib.sha256(table.to_json(orient="records").encode()).hexdigest()


def made(study):
    """Some of what each stage made of the small study: texts exactly, numbers as they are."""
    features, directions, decoder = study.matrix(SAE, DATASET), study.directions(SAE), study.decoder(SAE)
    verbal = files.read_table(study.path(paths.VERBAL) / f"{DATASET}.parquet")
    first = features[[0]]
    return {
        "prepare": {"texts": exact(study.prompts(DATASET)), "numbers": []},
        "extract": {
            "texts": sorted(study.about_activations(DATASET)),
            "numbers": study.matrix(LAYER, DATASET)[:3, :8].astype(float).ravel().tolist(),
        },
        "judge": {"texts": list(verbal.columns), "numbers": verbal["log_odds"].head(8).tolist()},
        "encode": {
            "texts": [features.shape[1], *first.indices.tolist(), *directions.feature_ids[:8].tolist()],
            "numbers": [
                *first.data.astype(float).tolist(),
                *decoder.reconstruct(first, None)[0, :8].astype(float).tolist(),
            ],
        },
    }


@pytest.mark.parametrize("stage", ["prepare", "extract", "judge", "encode"])
def test_a_stage_with_the_same_version_makes_the_same(project, stage):
    found = made(Study.open(project.folder))
    versions = yaml.safe_load(VERSIONS.read_text())
    if not GOLDEN.exists():
        golden = {name: {"version": versions[name]} | part for name, part in found.items()}
        GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")
        pytest.fail(f"{GOLDEN.name} is written: look at what changed, and commit it")
    golden = json.loads(GOLDEN.read_text())[stage]
    assert golden["version"] == versions[stage], HOW
    assert found[stage]["texts"] == golden["texts"], HOW
    # other processors round otherwise in the last bits
    assert found[stage]["numbers"] == pytest.approx(golden["numbers"], rel=1e-3, abs=1e-4), HOW

"""The worked examples of docs/extending.md run as they stand, on the finished small study."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from sae_transfer.core.space import residual_stream
from sae_transfer.data.loaders import loader_registry as loaders
from sae_transfer.data.loaders.loader_registry import DatasetParams
from sae_transfer.pipeline.study import Study
from sae_transfer.probing import kinds

PAGE = (Path(__file__).parents[1] / "docs/extending.md").read_text()


def blocks(heading):
    """The Python of a section."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)[1]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def example(heading):
    """Runs the Python of a section."""
    names = {}
    for block in blocks(heading):
        exec(block, names)


@pytest.fixture(autouse=True)
def registries():
    """Whatever an example adds is gone after its test."""
    every = (kinds.KINDS, kinds.KEYS, kinds.TRAININGS, loaders.LOADERS)
    before = [dict(registry) for registry in every]
    yield
    for registry, entries in zip(every, before, strict=True):
        registry.clear()
        registry.update(entries)


def test_the_dataset_section_is_valid():
    section = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1]
    assert DatasetParams.model_validate(yaml.safe_load(section)["datasets"]["mine"]).columns.positive == "supported"


def test_a_loader(tmp_path):
    example("A loader")
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps([[f"context {i}", "what?", i % 2] for i in range(6)]))
    params = DatasetParams(loader="pairs", path=path, n_train=2, n_test=2)
    rows, _ = loaders.load("mine", params)
    assert [row.label for row in rows] == [0, 1, 0, 1, 0, 1]


def test_a_kind_of_probe(project):
    example("A kind of probe")
    study = Study.open(project.folder)
    space = residual_stream(3)
    fitted = kinds.fit(space, study.rows(space, "passages"), study.seed, study.params.probe)
    (probe,) = [probe for probe in fitted if probe.kind == "median_difference"]
    assert probe.cv_auc > 0.6
    assert kinds.label("median_difference") == "difference of medians"


def test_an_analysis(fresh):
    package = fresh.folder / "src/sae_transfer/analyses"
    (package / "spread.py").write_text(blocks("An analysis")[0])
    registry = package / "analysis_registry.py"
    registry.write_text(re.sub("^( +)regimes,$", r"\1regimes,\n\1spread,", registry.read_text(), flags=re.MULTILINE))
    parts = fresh.folder / "artifacts/analyses"
    kept = {path: path.stat().st_mtime_ns for path in parts.rglob("*.parquet")}
    assert fresh.command("analyse")[0] == 0
    table = pd.read_csv(fresh.folder / "results/spread.csv")
    assert set(table["space"]) == {space.name for space in fresh.study.spaces}
    assert (table["spread"] > 0).all()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # nothing else is computed anew


def test_what_a_fit_makes_is_registered(project):
    """A kind that is trained and not in KINDS, or the other way round, is forgotten somewhere."""
    study = Study.open(project.folder)
    made = {(probe.kind, probe.family) for space in study.spaces for probe in study.probes(space, "passages")}
    elsewhere = {("verbal", "verbal"), *((kind, family) for kind, family in kinds.KEYS.values() if kind == "text")}
    elsewhere |= {(kind, family) for kind, family in kinds.KEYS.values() if kind == "target_trained"}
    assert made | elsewhere == set(kinds.KEYS.values())

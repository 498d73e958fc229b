"""A study read from Python: what it gives, and what it does not need."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from project import LAYER, SAE, SIZES
from sae_transfer import Study
from sae_transfer.core.errors import UserError
from sae_transfer.model import loading, saes
from sae_transfer.pipeline.detector import Detector
from sae_transfer.pipeline.encode import Encoder
from sae_transfer.results import cells

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


def test_a_study_is_read_from_any_folder(project, tmp_path, monkeypatch):
    """Model and SAE too, whose paths in params.yaml are those of the study's folder."""
    monkeypatch.chdir(tmp_path)
    study = Study.open(os.path.relpath(project.folder))
    monkeypatch.chdir("/")
    assert len(study.rows(SAE, "people")) == SIZES[0]
    assert Encoder(study)._sae(study.space(SAE)).cfg.d_sae == study.rows(SAE, "people").X.shape[1]
    loaded = []
    for module, name in ((loading, "load_model"), (saes, "load_sae")):
        load = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *words, name=name, load=load: (loaded.append(name), load(*words))[1])
    detector = Detector(study, "passages", "sparse_n", SAE)
    at = study.at("people", "test")[:4]
    prompts = list(study.prompts("people")["prompt"].iloc[at])
    verdicts = [*detector(prompts[:2]), *detector(prompts[2:])]
    X = study.matrix(study.space(SAE), "people")[at]
    np.testing.assert_allclose([one.score for one in verdicts], detector.probe.score(X), atol=1e-4)
    assert list(pd.DataFrame(verdicts).columns) == ["prompt", "score", "probability", "answerable", "fired"]
    assert sorted(loaded) == ["load_model", "load_sae"]  # once, however often it is called
    with pytest.raises(UserError, match="a single text in place of prompts; give a list"):
        detector("w1 w2")


def test_headline_cells_are_those_of_the_report(project):
    found = project.study.headline()
    assert not found.duplicated(["space", "train", "test", "key"]).any()
    assert found["selected"].all()
    assert set(found["test_variation"]) == {"default"}
    assert found["auc"].dtype == float
    with pytest.raises(UserError, match="table 'transfers' is unknown; did you mean transfer"):
        project.study.table("transfers")


def test_the_best_features_and_what_they_fire_on(project):
    study = project.study
    best = study.features(SAE, "passages", n=2, examples=4)
    table = cells.own_template(cells.full(study.table("transfer")))
    for row in best.to_dict("records"):
        probe = study.probe(SAE, "passages", "sparse_1", rank=row["rank"])
        assert probe.feature_ids.tolist() == [row["feature"]]
        for test in study.datasets:
            chosen = table[(table["train"] == "passages") & (table["test"] == test) & (table["space"] == SAE)]
            (cell,) = chosen[(chosen["probe"] == "sparse_1") & (chosen["rank"] == row["rank"])].to_dict("records")
            assert row[f"auc_{test}"] == cell["auc"]
    column = {
        name: study.matrix(study.space(SAE), name)[:, [best["feature"][0]]].toarray().ravel() for name in study.datasets
    }
    own = np.concatenate([column[name][study.at(name, None)] for name in study.datasets])
    most = study.activating(SAE, best["feature"][0], 4)
    np.testing.assert_array_equal(most["activation"], np.sort(own)[::-1][:4])
    assert best["prompts"][0] == list(most["prompt"])
    for row in most.to_dict("records"):
        prompts = study.prompts(row["dataset"])
        (place,) = np.flatnonzero((prompts["prompt"] == row["prompt"]) & (prompts["variation"] == "default"))
        assert column[row["dataset"]][place] == pytest.approx(row["activation"])
        assert (prompts["label"][place], prompts["split"][place]) == (row["label"], row["split"])


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda s: s.activating(SAE, 512), "narrow_3 has no feature 512; its 512 features are counted from 0"),
        (lambda s: s.activating(LAYER, 1), "layer_3 has no features; known: narrow_3"),
        (lambda s: s.rows("narow_3", "people"), "space 'narow_3' is unknown; did you mean narrow_3?"),
        (lambda s: s.rows(SAE, "pasages"), "dataset 'pasages' is not in study.datasets; did you mean passages?"),
        (lambda s: s.heatmap(SAE, "sparse_2"), "narrow_3: no rows of 'sparse_2'; did you mean sparse_n or sparse_1?"),
        (
            lambda s: s.probe(LAYER, "people"),
            "layer_3, people: no sparse_1 probe here, but residual and mean_difference",
        ),
        (lambda s: Study.open(s.root / "docs"), "params.yaml: not found"),
    ],
)
def test_what_is_not_there_is_named(project, ask, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")) as caught:
        ask(project.study)
    assert "\n" not in str(caught.value)


def test_a_heatmap_is_a_picture_that_a_notebook_shows(project, tmp_path):
    picture = project.study.heatmap(SAE, "sparse_1", "delta_residual")
    assert picture._repr_png_().startswith(b"\x89PNG")
    picture.save(tmp_path / "heatmap.svg")
    assert "<svg" in (tmp_path / "heatmap.svg").read_text()

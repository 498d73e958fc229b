"""Results of git revisions and DVC experiments, read from a real repository."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import tables
from sae_transfer.core.errors import UserError
from sae_transfer.pipeline import versioning

PIPELINE = """
stages:
  report:
    cmd: mkdir -p results artifacts/transfer && cp $(cat params.yaml | cut -d" " -f2)/transfer.csv results/ && cp -r
      $(cat params.yaml | cut -d" " -f2)/narrow artifacts/transfer/
    params:
    - which
    outs:
    - results/transfer.csv
    - artifacts/transfer
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Two commits, `first` and `second`, and an experiment `tried`; their tables have 1, 2 and 3 rows."""
    root = tmp_path_factory.mktemp("revisions") / "project"
    root.mkdir()
    table = tables.table(["alpha"], {"narrow": 2})
    for n in (1, 2, 3):
        (root / f"study{n}/narrow").mkdir(parents=True)
        table.head(n).to_csv(root / f"study{n}/transfer.csv", index=False)
        for train in range(2):  # of whose rows and scores the scores alone are read, one training set after the other
            pd.DataFrame({"n": range(n)}).assign(train=train).to_parquet(
                root / f"study{n}/narrow/{train}.scores.parquet"
            )
            pd.DataFrame({"other": [1]}).to_parquet(root / f"study{n}/narrow/{train}.rows.parquet")
    env = os.environ | {"DVC_NO_ANALYTICS": "true", "DVC_SITE_CACHE_DIR": str(root.parent / "dvc")}
    env |= {f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def run(*words):
        done = subprocess.run(words, cwd=root, env=env, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    dvc = (sys.executable, "-m", "dvc")
    run("git", "init", "--quiet")
    run(*dvc, "init", "--quiet")
    (root / "dvc.yaml").write_text(PIPELINE)
    for n, name in ((1, "first"), (2, "second")):
        (root / "params.yaml").write_text(f"which: study{n}\n")
        run(*dvc, "repro", "--quiet")
        run("git", "add", "-A")
        run("git", "commit", "--quiet", "-m", name)
        run("git", "tag", name)
    run(*dvc, "exp", "run", "--quiet", "-S", "which=study3", "--name", "tried")
    run("git", "checkout", "--quiet", "--force", "second")
    run(*dvc, "checkout", "--quiet", "--force")
    return root


@pytest.fixture
def here(repository, monkeypatch):
    monkeypatch.chdir(repository)
    return repository


@pytest.mark.parametrize(("name", "rows"), [("first", 1), ("second", 2), ("HEAD", 2), ("tried", 3), (".", 2)])
def test_a_study_is_found_by_revision_experiment_or_folder(here, name, rows):
    with versioning.opened(name) as study:
        assert len(study.table) == rows
        assert study.scores("narrow")["train"].tolist() == [0] * rows + [1] * rows
        assert study.scores("layer_2") is None


def test_lists_of_features_stay_text_and_empty_words_stay_words(here, tmp_path):
    table = tables.table(["alpha"], {"narrow": 2})
    table.to_csv(tmp_path / "transfer.csv", index=False)
    with versioning.opened(str(tmp_path)) as study:
        pd.testing.assert_frame_equal(study.table, table, check_dtype=False)
        assert set(study.table["feature_ids"].map(type)) == {str}


def test_what_is_nowhere_is_said_in_one_line(here, tmp_path):
    with (
        pytest.raises(UserError, match=r"^frist: no such folder, git revision or DVC experiment"),
        versioning.opened("frist"),
    ):
        pass
    with pytest.raises(UserError, match=r"no results/transfer\.csv in this folder"), versioning.opened(str(tmp_path)):
        pass
    with pytest.raises(UserError, match=r"results\.csv: no such folder"), versioning.opened("results.csv"):
        pass


def test_a_table_of_another_version_is_refused(here, tmp_path):
    tables.table(["alpha"], {"narrow": 2}).drop(columns="selected").to_csv(tmp_path / "transfer.csv", index=False)
    old = "lacks selected: another version wrote it; run `dvc repro` with this one"
    with pytest.raises(UserError, match=old), versioning.opened(str(tmp_path)):
        pass


def test_a_revision_whose_results_left_the_cache_says_how_to_get_them(repository, tmp_path, monkeypatch):
    shutil.copytree(repository, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    for path in Path(".dvc/cache").rglob("*.dir"):
        path.unlink()
    with versioning.opened("first") as study:  # without its scores, which a comparison can do without
        assert len(study.table) == 1
        assert study.scores("narrow") is None
    shutil.rmtree(".dvc/cache")
    lost = r"first: results/transfer\.csv is not in DVC's cache"
    with pytest.raises(UserError, match=lost), versioning.opened("first"):
        pass

"""The report stage on a made-up study: its files, its numbers, and a page that asks nothing of the network."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import yaml

from sae_transfer import figures, paths, report, store
from sae_transfer.features import Health
from sae_transfer.records import UserError
from sae_transfer.report import About
from sae_transfer.stages.report import make_report
from tables import bootstrap_tables, table

DATASETS = ["alpha", "beta", "gamma"]
HEALTH = {"width": 64, "l0": 7.5, "explained_variance": None, "dead": 0.25}


@pytest.fixture(scope="module")
def study():
    return table(DATASETS, {"narrow_2": 2}, variations={"beta": ["terse"]})


@pytest.fixture(scope="module")
def project(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    for space, rows in study.groupby("space"):
        store.write_table(folder / paths.TRANSFER / f"{space}.parquet", rows)
        spread, features = bootstrap_tables(rows)
        store.write_table(folder / paths.BOOTSTRAP_TABLES / f"{space}.csv", spread)
        store.write_table(folder / paths.BOOTSTRAP_TABLES / f"{space}_features.csv", features)
    for dataset in DATASETS:
        store.write_json(folder / paths.FEATURES / dataset / "narrow_2.json", HEALTH)
    params = {
        "seed": 0,
        "study": {"datasets": DATASETS, "saes": ["narrow_2"], "saes_identity": "models/demo/saes"},
        "model": {"name": "models/demo/model", "layers": [2], "dtype": "float32", "chat_template": False},
        "datasets": {name: {"loader": "table", "path": f"data/{name}.jsonl"} for name in DATASETS},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder


@pytest.fixture(scope="module")
def made(project):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        make_report()
    return project


class Page(HTMLParser):
    """Collects (tag, attributes) and checks that every tag that must close does."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def page(study, datasets=DATASETS, model="tiny"):
    health = {"narrow_2": {name: Health(64, 7.5, np.nan, 0.25) for name in datasets}}
    svgs = dict.fromkeys(["in_domain_vs_ood", "auc_by_n", *(f"variations_{name}" for name in datasets)], "<svg/>")
    about = About(model, {"seed": "0"}, dict.fromkeys(datasets, "somewhere"), health)
    return report.page(study, report.summary(study), svgs, about)


def test_stage_writes_every_file(made, study):
    found = pd.read_csv(made / "results/transfer.csv")
    assert len(found) == len(study)
    assert set(found["auc_train_sd"].dropna()) > {0.01}
    spread, features = bootstrap_tables(study)
    assert len(pd.read_csv(made / "results/bootstrap.csv")) == len(spread)
    assert len(pd.read_csv(made / "results/bootstrap_features.csv")) == len(features)
    names = {path.name for path in (made / paths.FIGURES).iterdir()}
    assert len(names) == 2 * 13
    assert {"heatmap_narrow_2_sparse_1.png", "difference_narrow_2_sparse_n.svg", "auc_by_n.png"} <= names
    assert (made / "report/index.html").stat().st_size > 10_000


def test_second_run_gives_equal_bytes(made, tmp_path, monkeypatch):
    again = tmp_path / "again"
    joined = ("transfer.csv", "bootstrap.csv", "bootstrap_features.csv", "metrics.json")
    shutil.copytree(made, again, ignore=shutil.ignore_patterns("report", *joined))
    monkeypatch.chdir(again)
    draw = figures.draw  # most heatmaps are left out to save time
    monkeypatch.setattr(
        figures, "draw", lambda t: (x for x in draw(t) if x[0].startswith(("diff", "in", "auc", "var")))
    )
    make_report()
    files = [path for part in ("results", "report") for path in (again / part).rglob("*") if path.is_file()]
    assert len(files) == 2 * (3 + 3) + 2 + 3 + 6  # the bootstrap's: two tables joined, of two spaces each
    assert all(path.read_bytes() == (made / path.relative_to(again)).read_bytes() for path in files)


def test_page_is_whole_and_asks_nothing_of_the_network(made):
    found = Page((made / "report/index.html").read_text())
    assert not found.open
    assert not [tag for tag, _ in found.tags if tag in ("script", "link", "iframe")]
    assert all(attrs["href"].startswith("#") for tag, attrs in found.tags if tag == "a")
    images = [attrs for tag, attrs in found.tags if tag == "img"]
    assert len(images) == 3
    assert all(image["src"].startswith("data:image/svg+xml;base64,") and image["alt"] for image in images)
    assert "http" not in (made / "report/index.html").read_text()
    anchors = {attrs.get("id") for _, attrs in found.tags}
    assert {attrs["href"][1:] for tag, attrs in found.tags if tag == "a"} <= anchors


def test_page_shows_the_numbers_of_the_table(made, study):
    text = (made / "report/index.html").read_text()
    rows = study[(study["probe"] == "sparse_n") & study["selected"] & (study["test_variation"] == "default")]
    for row in rows.to_dict("records"):
        exact = f"AUC {row['auc']:.4f}, 95% interval {row['auc_low']:.4f} to {row['auc_high']:.4f}"
        hint = f"{exact}; trained on {row['train']} (n = 240), tested on {row['test']} (n = 40)"
        assert hint in text
    assert "EV –" in text  # an explained variance that is missing
    assert "dead 25%" in text


def test_summary_is_what_pandas_says(study):
    numbers = report.summary(study)
    rows = study[(study["space"] == "narrow_2") & (study["probe"] == "sparse_1") & study["selected"]]
    rows = rows[rows["test_variation"] == "default"]
    away = rows[~rows["in_domain"]]
    found = numbers["narrow_2"]["sparse_1"]
    assert found["auc_in_domain"] == round(rows.loc[rows["in_domain"], "auc"].mean(), 6)
    assert found["auc_ood"] == round(away["auc"].mean(), 6)
    assert found["auc_ood_worst"] == round(away["auc"].min(), 6)
    assert found["cells_ood"] == 6
    assert found["share_loses_to_residual"] == round((away["delta_high"] < 0).mean(), 6)
    assert abs(numbers["layer_2"]["shuffled_labels_residual"]["auc"] - 0.5) < 0.05
    assert "share_beats_residual" not in numbers["layer_2"]["residual"]
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers


def test_findings_count_what_the_table_says(study):
    rows = study[(study["probe"] == "sparse_1") & study["selected"] & (study["test_variation"] == "default")]
    away = rows[~rows["in_domain"]]
    wins, losses = (away["delta_low"] > 0).sum(), (away["delta_high"] < 0).sum()
    told = next(finding for finding in report.findings(study) if finding.startswith("1-sparse"))
    assert (
        f"Of 6 out-of-domain cells with an interval, it beats the residual stream probe of its layer in {wins}" in told
    )
    assert f"loses in {losses}." in told


def test_missing_cells_are_dashes_with_the_reason_in_their_title(study):
    gone = study.copy()
    one_class = (gone["test"] == "gamma") & (gone["space"] == "narrow_2")
    numbers = [column for column in gone if column.startswith(("auc", "delta"))]
    gone.loc[one_class, numbers] = np.nan
    gone.loc[one_class, "reason"] = "auc: one class; delta_residual: one class"
    text = page(gone)
    assert re.search(r'title="AUC missing: one class; trained on alpha [^"]*">–', text)
    assert "nan" not in re.sub("<[^>]*>", " ", text).lower().split()


def test_few_groups_say_why_there_is_no_interval():
    few = table(["alpha", "beta"], {"narrow_2": 2}, n_groups={"beta": 5})
    text = page(few, ["alpha", "beta"])
    assert "no interval: 5 groups, fewer than 10" in text
    assert "smallest\ntest set has 5 groups" in text


def test_one_dataset_has_no_out_of_domain_cells():
    alone = table(["alpha"], {"narrow_2": 2})
    assert report.summary(alone)["narrow_2"]["sparse_1"]["auc_ood"] is None
    assert page(alone, ["alpha"])


def test_odd_names_are_escaped():
    odd = '<b>"Q&A"</b>'
    text = page(table([odd, "beta"], {"narrow_2": 2}), [odd, "beta"], model="<script>alert(1)</script>")
    assert "<b>&" not in text
    assert "<script" not in text
    assert "&lt;b&gt;&#34;Q&amp;A&#34;&lt;/b&gt;" in text


def test_missing_space_says_what_makes_it(project, tmp_path, monkeypatch, capsys):
    shutil.copytree(project, tmp_path / "p", ignore=shutil.ignore_patterns("narrow_2.parquet", "report", "*.csv"))
    monkeypatch.chdir(tmp_path / "p")
    with pytest.raises(UserError, match=r"results/transfer/narrow_2.parquet: not found; `dvc repro` makes it"):
        make_report()
    assert not (tmp_path / "p/report").exists()

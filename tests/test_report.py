"""The report stage on a made-up study: its files, its numbers, and a page that asks nothing of the network."""

import json
import re
import shutil
from html.parser import HTMLParser
from itertools import product

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import sparse

from sae_transfer import features, figures, paths, report, result_files, stability, store
from sae_transfer.features import Health
from sae_transfer.records import UserError
from sae_transfer.report import About, best_features, numbers
from sae_transfer.report.analyses import Column, tabulate
from sae_transfer.stages.join import join
from sae_transfer.stages.report import make_report
from tables import table

DATASETS = ["alpha", "beta", "gamma"]
HEALTH = {"width": 64, "l0": 7.5, "explained_variance": None, "dead": 0.25}


@pytest.fixture(scope="module")
def study():
    return table(DATASETS, {"narrow_2": 2}, variations={"beta": ["terse"]})


@pytest.fixture(scope="module")
def project(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    store.write_table(folder / paths.RESULTS / "transfer.csv", study)
    spread = study.assign(varied="groups", resamples=20, auc_mean=study["auc"], auc_sd=0.01)
    spread = spread[~spread["probe"].isin(["shuffled_labels"])]
    store.write_table(folder / paths.RESULTS / "bootstrap.csv", spread.reindex(columns=stability.COLUMNS))
    for name in result_files.ANALYSES[1:]:
        store.write_table(folder / paths.RESULTS / f"{name}.csv", pd.DataFrame(columns=["space"]))
    _write_artifacts(folder, study)
    params = {
        "seed": 0,
        "study": {"datasets": DATASETS, "saes": ["narrow_2"], "saes_identity": "models/demo/saes"},
        "model": {"name": "models/demo/model", "layers": [2], "dtype": "float32", "chat_template": False},
        "saes": {"narrow_2": {"layer": 2, "release": "gpt2-small-res-jb", "id": "blocks.2.hook_resid_pre"}},
        "datasets": {name: {"loader": "table", "path": f"data/{name}.jsonl"} for name in DATASETS},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder


def _write_artifacts(folder, study):
    """Prompts, features and scores of every dataset; on row 3 of its prompts, every feature fires most."""
    rng, scores = np.random.default_rng(0), []
    for dataset in DATASETS:
        store.write_json(folder / paths.FEATURES / dataset / "narrow_2.json", HEALTH)
        identity = {"revision": None, "weights_sha256": "abc123", "prompts_sha256": f"sha-{dataset}"}
        identity |= {"torch": "2", "transformers": "5"}
        store.write_json(folder / paths.ACTIVATIONS / dataset / "identity.json", identity)
        prompts = pd.DataFrame({"id": [f"r{i}" for i in range(12)], "label": [0, 1] * 6, "variation": "default"})
        prompts["split"] = ["train"] * 6 + ["test"] * 6
        prompts["prompt"] = [f"{dataset} prompt {i} <&>" for i in range(12)]
        store.write_table(folder / paths.PROMPTS / f"{dataset}.parquet", prompts)
        dense = (rng.random((12, 64)) < 0.5) * rng.random((12, 64))
        dense[3] = 7.0 + DATASETS.index(dataset)
        features.write(
            folder / paths.FEATURES / dataset, "narrow_2", sparse.csr_array(dense), Health(64, 7.5, np.nan, 0.25), ""
        )
        for train, rank in product(DATASETS, (1, 2)):
            part = prompts[prompts["split"] == "test"].assign(train=train, test=dataset, rank=rank, n_train=240)
            part = part.assign(probe="sparse_1", condition="test", test_variation="default", n_features=1)
            scores.append(
                part.assign(selected=rank == 1, probability=np.where(part["id"] == "r9", 0.03, part["label"]))
            )
    store.write_table(folder / paths.SCORES / "narrow_2.parquet", pd.concat(scores))


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
    return report.page(study, svgs, about)


def test_stage_writes_every_file(made):
    names = {path.name for path in (made / paths.FIGURES).iterdir()}
    assert len(names) == 2 * 14
    assert {"heatmap_narrow_2_sparse_1.png", "difference_narrow_2_sparse_n.svg", "training_spread.png"} <= names
    assert (made / "report/index.html").stat().st_size > 10_000


def test_second_run_gives_equal_bytes(made, tmp_path, monkeypatch):
    again = tmp_path / "again"
    shutil.copytree(made, again, ignore=shutil.ignore_patterns("report"))
    monkeypatch.chdir(again)
    drawings = figures.drawings  # most heatmaps are left out to save time
    wanted = ("diff", "in", "auc", "var")
    monkeypatch.setattr(figures, "drawings", lambda t: {n: d for n, d in drawings(t).items() if n.startswith(wanted)})
    make_report()
    files = [path for path in (again / "report").rglob("*") if path.is_file()]
    assert len(files) == 2 * (3 + 4) + 1
    assert all(path.read_bytes() == (made / path.relative_to(again)).read_bytes() for path in files)


def test_metrics_are_the_summary_and_the_headlines_of_the_analyses(made, study):
    found = store.read_json(made / "results/metrics.json")
    assert {space: found[space] for space in report.summary(study)} == report.summary(study)
    assert found["bootstrap"]["narrow_2"]["sparse_1"] == {"auc_sd": 0.01}
    regret = pd.DataFrame({"sae": "a", "probe": "sparse_1", "policy": ["x", "x", "y"], "auc": [0.5, 0.7, np.nan]})
    told = numbers.of_analyses({"policies": regret.assign(regret=0.1)})
    assert told == {
        "policies": {"a": {"sparse_1": {"x": {"auc": 0.6, "regret": 0.1}, "y": {"auc": None, "regret": 0.1}}}}
    }


def test_join_writes_the_tables_of_every_space_as_one(made, study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(made / "params.yaml", "params.yaml")
    spread = pd.read_csv(made / "results/bootstrap.csv")
    for space, rows in study.groupby("space"):
        store.write_table(paths.TRANSFER / f"{space}.parquet", rows)
        store.write_table(paths.BOOTSTRAP_TABLES / f"{space}.csv", spread[spread["space"] == space])
    store.write_table(paths.BOOTSTRAP_TABLES / "narrow_2_features.csv", pd.DataFrame(columns=["space"]))
    join()
    joined = result_files.read_transfer(paths.RESULTS / "transfer.csv")
    assert len(joined) == len(study)
    residual = joined[(joined["probe"] == "residual") & (joined["test_variation"] == "default")]
    assert set(residual["auc_train_sd"]) == {0.01}
    (paths.TRANSFER / "narrow_2.parquet").unlink()
    with pytest.raises(UserError, match=r"results/transfer/narrow_2.parquet: not found; `dvc repro` makes it"):
        join()


def test_page_is_whole_and_asks_nothing_of_the_network(made):
    found = Page((made / "report/index.html").read_text())
    assert not found.open
    assert not [tag for tag, _ in found.tags if tag in ("link", "iframe")]
    assert [attrs for tag, attrs in found.tags if tag == "script"] == [{}]  # its own, which sorts tables
    away = {attrs["href"] for tag, attrs in found.tags if tag == "a" and not attrs["href"].startswith("#")}
    assert away  # links for a person to follow, not for the page to load
    assert all(re.fullmatch(r"https://www\.neuronpedia\.org/gpt2-small/2-res-jb/\d+", href) for href in away)
    images = [attrs for tag, attrs in found.tags if tag == "img"]
    assert len(images) == 4
    assert all(image["src"].startswith("data:image/svg+xml;base64,") and image["alt"] for image in images)
    assert not re.search(r"(src|href)=.?http(?!s://www\.neuronpedia)", (made / "report/index.html").read_text())
    anchors = {attrs.get("id") for _, attrs in found.tags}
    assert {attrs["href"][1:] for tag, attrs in found.tags if tag == "a" and attrs["href"] not in away} <= anchors


def test_page_shows_the_numbers_of_the_table(made, study):
    text = (made / "report/index.html").read_text()
    rows = study[(study["probe"] == "sparse_n") & study["selected"] & (study["test_variation"] == "default")]
    for row in rows.to_dict("records"):
        exact = f"AUC {row['auc']:.4f}, 95% interval {row['auc_low']:.4f} to {row['auc_high']:.4f}"
        hint = f"{exact}; trained on {row['train']} (n = 240), tested on {row['test']} (n = 40)"
        assert hint in text
    assert "EV –" in text  # an explained variance that is missing
    assert "dead 25%" in text


def test_page_shows_the_prompts_behind_a_feature_and_what_pins_the_study(made):
    text = (made / "report/index.html").read_text()
    most = text.count("gamma prompt 3 &lt;&amp;&gt;")  # the largest activation of every feature
    assert most == 3 * 2  # by training set and rank
    assert text.count("gamma, answerable, activation 9.00") == most
    assert "train prompt" not in text
    wrong = re.findall(r"(\w+), answerable, p = 0.03</small>\n(\w+) prompt 9 ", text)
    assert len(wrong) == 3 * 2 * 3
    assert {a == b for a, b in wrong} == {True}
    assert "abc123" in text
    assert "sha-beta" in text


def test_overlap_is_the_share_of_the_features_that_two_training_sets_chose_both(study):
    pairs = {row["pair"]: row for row in best_features.overlap(study, "narrow_2")}
    assert list(pairs) == ["alpha and beta", "alpha and gamma", "beta and gamma"]
    rows = study[(study["probe"] == "sparse_1") & (study["test"] == "alpha") & (study["test_variation"] == "default")]
    top = {train: set(part["feature_ids"]) for train, part in rows.groupby("train")}
    assert pairs["alpha and beta"]["top"] == len(top["alpha"] & top["beta"]) / len(top["alpha"] | top["beta"])
    assert best_features.jaccard({1, 2}, {2, 3}) == 1 / 3
    assert np.isnan(best_features.jaccard(set(), {1}))


def test_tables_of_analyses_carry_intervals_reasons_and_what_to_sort_by():
    frame = pd.DataFrame(
        {"space": ["a", "b"], "auc": [0.5, np.nan], "n": [3, 4], "gap": [-0.1, 0.2], "good": [True, False]}
    )
    frame = frame.assign(low=[0.4, np.nan], high=[0.6, np.nan], reason=["", "one class"])
    columns = [Column("space", "space"), Column("auc", "AUC", ("low", "high")), Column("n", "n", digits=0)]
    made = tabulate(frame, "A table", [*columns, Column("gap", "gap", signed=True), Column("good", "good")])
    assert [heading.numeric for heading in made.headings] == [False, True, True, True, False]
    shown = [[(cell.text, cell.small, cell.hint, cell.sort) for cell in row] for row in made.rows]
    assert shown[0][:3] == [("a", "", "", None), ("0.50", "0.40–0.60", "", 0.5), ("3", "", "", 3)]
    assert shown[0][3:] == [("−0.10", "", "", -0.1), ("yes", "", "", None)]
    assert shown[1][1] == ("–", "", "one class", None)


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
    assert f"loses in {losses}; after Holm" in told


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
    assert "<script>alert" not in text
    assert "&lt;b&gt;&#34;Q&amp;A&#34;&lt;/b&gt;" in text


def test_a_missing_table_says_what_makes_it(project, tmp_path, monkeypatch):
    shutil.copytree(project, tmp_path / "p", ignore=shutil.ignore_patterns("bootstrap.csv", "report"))
    monkeypatch.chdir(tmp_path / "p")
    with pytest.raises(UserError, match=r"results/bootstrap.csv: not found; `dvc repro` makes it"):
        make_report()
    assert not (tmp_path / "p/report").exists()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_table_is_sorted_by_the_heading_that_is_pressed_and_nothing_is_fetched(made):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        asked, errors = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((made / "report/index.html").as_uri())
        table = page.locator("table.features").first
        for order in ("ascending", "descending"):
            table.locator("th", has_text="CV AUC").click()
            assert table.locator("th", has_text="CV AUC").get_attribute("aria-sort") == order
        table.locator("th", has_text="feature").first.click()
        ids = [int(text) for text in table.locator("tbody tr td:nth-child(3)").all_inner_texts()]
        assert ids == sorted(ids)
        assert len(set(ids)) > 2
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert errors == []

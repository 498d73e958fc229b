"""The page: whole, true to its tables, and nothing that it asks of the network."""

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from sae_transfer.analyses.analysis_registry import ANALYSES, TABLES
from sae_transfer.artifacts.features import Health
from sae_transfer.core import paths
from sae_transfer.report.best_features import Behaviour, Example
from sae_transfer.report.page import PAPER, About, page
from sae_transfer.results.sections import Cell, Heading, LookUp, Picture, Section
from tables import table

DATASETS = ["alpha", "beta", "gamma"]
SAE = "narrow_2"
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def study():
    return table(DATASETS, {SAE: 2}, variations={"beta": ["terse"]})


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

    def of(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def made(study, datasets=DATASETS, sections=(), model="tiny", **about):
    """The page of a made-up study, with drawings that show nothing."""
    health = {SAE: {name: Health(64, 7.5, np.nan, 0.25) for name in datasets}}
    svgs = dict.fromkeys(["in_domain_vs_ood", "auc_by_n", *(f"variations_{name}" for name in datasets)], "<svg/>")
    known = {"settings": {"seed": "0"}, "sources": dict.fromkeys(datasets, "somewhere"), "health": health} | about
    return page(study, svgs, About(model, **known), sections)


def words(text):
    """What a reader sees of a page."""
    return re.sub("<[^>]*>", " ", re.sub(r"<(style|script)>.*?</\1>", " ", text, flags=re.DOTALL))


@pytest.fixture(scope="module")
def written(project):
    return (project.folder / paths.REPORT / "index.html").read_text()


def test_the_page_is_whole_and_asks_nothing_of_the_network(project, written):
    found = Page(written)
    assert not found.open
    assert not [tag for tag in ("link", "iframe", "object", "video") if found.of(tag)]
    assert found.of("script") == [{}]  # its own, which sorts tables
    assert not re.search(r"(src|href)=.?(http|//)|@import|url\(", written)
    anchors = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    assert len(set(anchors)) == len(anchors)
    links = {attrs["href"] for attrs in found.of("a")}
    assert {link[1:] for link in links} <= set(anchors)
    pictures = {path.stem for path in (project.folder / paths.FIGURES).glob("*.svg")}
    shown = [name for name in pictures if not name.startswith(("heatmap_", "difference_"))]  # those are tables here
    images = found.of("img")
    assert len(images) == len(shown) > 5
    assert all(image["src"].startswith("data:image/svg+xml;base64,") and image["alt"] for image in images)


def test_every_table_with_rows_is_told_and_stands_in_the_contents(project, written):
    there = {name for name in TABLES if len(project.study.table(name))}
    assert "regimes" not in there  # the study names no training set for it
    text, ids = words(written), {attrs.get("id") for _, attrs in Page(written).tags}
    for name, analysis in ANALYSES.items():
        if analysis.section and name in there:
            section = analysis.section({table: project.study.table(table) for table in there})
            assert section.id in ids
            assert text.count(section.title) >= 2, section.title
    assert "regimes" not in ids


def test_the_page_shows_the_numbers_of_the_csv(project, written):
    rows = project.study.table("transfer")
    rows = rows[(rows["probe"] == "sparse_n") & rows["selected"] & (rows["test_variation"] == "default")]
    rows = rows[rows["n_train"] == 60]
    assert len(rows) == 4
    for row in rows.to_dict("records"):
        exact = f"AUC {row['auc']:.4f}, 95% interval {row['auc_low']:.4f} to {row['auc_high']:.4f}"
        assert f"{exact}; trained on {row['train']} (n = 60), tested on {row['test']} (n = 40)" in written


def test_the_page_tells_what_pins_the_study(project, written):
    study = project.study
    for name in study.datasets:
        about = study.about_activations(name)
        assert f"prompts of {name}, sha256</th><td><code>{about['prompts_sha256']}<" in written
        assert f"weights, sha256</th><td><code>{about['weights_sha256']}<" in written
        health = study.health(study.saes[0], name)
        assert f"L0 {health.l0:.1f}<br>EV {health.explained_variance:.2f}<br>dead {100 * health.dead:.0f}%" in written
        assert f"data/demo/{name}.jsonl (table)" in written
    assert f'<th scope="row">torch</th><td><code>{about["torch"]}<' in written
    assert "This is the demo" in written


def test_each_figure_of_the_paper_leads_to_where_it_is_here(written):
    assert {id for _, _, id in PAPER} <= {attrs.get("id") for _, attrs in Page(written).tags}
    assert "(not run)" not in written


def test_what_was_not_run_is_no_link(study):
    text = made(study)
    assert "Was there a better feature (not run)" in text
    assert 'href="#gap"' not in text
    assert 'href="#sure"' not in text
    assert "This is the demo" not in text
    assert "This is the demo" in made(study, demo=True)


def test_a_made_up_study_shows_every_cell_of_its_table(study):
    text = made(study)
    assert not Page(text).open
    rows = study[(study["probe"] == "sparse_n") & study["selected"] & (study["test_variation"] == "default")]
    assert len(rows) == 9
    for row in rows.to_dict("records"):
        exact = f"AUC {row['auc']:.4f}, 95% interval {row['auc_low']:.4f} to {row['auc_high']:.4f}"
        assert f"{exact}; trained on {row['train']} (n = 240), tested on {row['test']} (n = 40)" in text
        delta = f"{row['delta_residual']:.4f}, 95% interval {row['delta_residual_low']:.4f} to"
        assert f"AUC minus residual stream probe {delta}" in text
    assert "EV –" in text  # an explained variance that is missing
    assert "dead 25%" in text
    dataset = '<th scope="row">beta</th><td class="n">240</td><td class="n">40</td><td class="n">40</td>'
    assert f"{dataset}<td>default</td><td>terse</td><td>somewhere</td>" in text


def test_bold_marks_the_differences_whose_interval_excludes_zero(study):
    text = made(study)
    probes = ["mean_difference", "sparse_1", "sparse_n"]
    rows = study[(study["test_variation"] == "default") & study["probe"].isin(probes)]
    rows = rows[rows["selected"]]
    sure = (rows["delta_residual_low"] > 0) | (rows["delta_residual_high"] < 0)
    assert text.count("<b>") == sure.sum() > 0
    assert not sure.all()


def test_missing_cells_are_dashes_with_the_reason_in_their_title(study):
    gone = study.copy()
    one_class = (gone["test"] == "gamma") & (gone["space"] == SAE)
    gone.loc[one_class, [column for column in gone if column.startswith(("auc", "delta"))]] = np.nan
    gone.loc[one_class, "reason"] = "auc: one class; delta_residual: too few"
    gone = gone[~((gone["space"] == SAE) & (gone["train"] == "beta") & (gone["test"] == "alpha"))]
    text = made(gone)
    assert re.search(r'title="AUC missing: one class; trained on alpha [^"]*">–', text)
    assert re.search(r'title="AUC minus residual stream probe missing: too few; trained on alpha [^"]*">–', text)
    assert re.search(r'title="AUC missing: not measured; trained on beta [^"]*tested on alpha \(n = –\)">–', text)
    assert "nan" not in words(text).lower().split()


def test_few_groups_say_why_there_is_no_interval():
    text = made(table(["alpha", "beta"], {SAE: 2}, n_groups={"beta": 5}), ["alpha", "beta"])
    assert "no interval: 5 groups, fewer than 10" in text
    assert "smallest\ntest set has 5 groups" in text


def test_one_dataset_has_no_out_of_domain_cells():
    text = made(table(["alpha"], {SAE: 2}), ["alpha"])
    assert "1-sparse SAE probe (narrow_2): mean AUC" in text
    assert " out of domain; worst" not in text
    assert not Page(text).open


def test_a_study_without_saes_has_a_page(study):
    text = made(study[study["sae"] == ""], health={})
    assert "No SAE in this study." in text
    assert "Sparse autoencoders" not in text
    assert not Page(text).open


def test_odd_names_are_escaped():
    odd = '<b>"Q&A"</b>'
    text = made(table([odd, "beta"], {SAE: 2}), [odd, "beta"], model="<script>alert(1)</script>")
    assert "<b>&" not in text
    assert '<b>"' not in text
    assert "<script>alert" not in text
    assert "&lt;b&gt;&#34;Q&amp;A&#34;&lt;/b&gt;" in text


def test_prompts_stand_behind_their_feature_and_links_are_for_a_person_to_follow(study):
    rows = study[(study["probe"] == "sparse_1") & (study["rank"] == 1) & (study["train"] == "alpha")]
    feature = int(rows["feature_ids"].iloc[0])
    facts = Behaviour(
        density={("alpha", feature): 0.375},
        active={feature: [Example("gamma", "Who <&> where?", 1, 9.0)]},
        wrong={("alpha", 2): [Example("beta", "And why?", 0, 0.97)]},
        links={feature: f"https://www.neuronpedia.org/gpt2-small/2-res-jb/{feature}"},
    )
    text = made(study, behaviour={SAE: facts})
    best = text[text.index(f"alpha, rank 1: feature {feature}") :]
    assert best.index("gamma, answerable, activation 9.00</small>\nWho &lt;&amp;&gt; where?") < best.index("</details>")
    assert "beta, unanswerable, p = 0.97</small>\nAnd why?" in text[text.index("alpha, rank 2: feature") :]
    assert "alpha, rank 3" not in text
    assert f'<a href="{facts.links[feature]}">{feature}</a></td>' in text
    assert '<td class="n">0.38</td>' in text  # the density
    away = [attrs["href"] for attrs in Page(text).of("a") if not attrs["href"].startswith("#")]
    assert set(away) == set(facts.links.values())


def test_a_section_stands_on_the_page_and_the_first_sentence_of_a_headline_among_the_findings(study):
    cells = [Cell("0.50", "0.40–0.60", "few & far", 0.5), Cell("yes")]
    listed = LookUp("Numbers", [Heading("AUC", True), Heading("good", False)], [cells])
    long = LookUp("Many", [Heading("AUC", True)], [[Cell("x")]] * 13)
    section = Section("own", "My title", "My lead.", ["One.", "Two."], [Picture("mine", "A picture")], [listed, long])
    for headline in (True, False):
        text = made(study, sections=[replace(section, headline=headline)])
        top, _, rest = text.partition('id="run"')
        assert ("<li>One.</li>" in top) is headline
        assert "<li>Two.</li>" not in top
        assert "<li>One.</li>\n<li>Two.</li>" in rest
        assert '<a href="#own">My title</a>' in top
        assert '<td class="n" data-sort="0.5" title="few &amp; far">0.50 <small>0.40–0.60</small></td>' in rest
        assert "<td>yes</td>" in rest
        assert "<summary>Many (13 rows)</summary>" in rest
        assert "A picture" not in text  # nothing was drawn


def test_rows_that_are_left_out_are_told_and_every_cell_tells_its_own_size(study):
    fewer = study.copy()
    pair = (fewer["train"] == "alpha") & (fewer["test"] == "beta")
    fewer.loc[pair, ["n_test", "n_overlap"]] = [28, 12]
    text = made(fewer)
    assert "<li>In 1 of 9 pairs of a training and a test set, 12 test rows are left out" in text
    assert "trained on alpha (n = 240), tested on beta (n = 28)" in text
    assert "trained on gamma (n = 240), tested on beta (n = 40)" in text
    assert "beta<small>n = 28–40</small></th>" in text
    assert "alpha<small>n = 40</small></th>" in text


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_table_is_sorted_by_the_heading_that_is_pressed_and_nothing_is_fetched(project, study, tmp_path):
    from playwright.sync_api import sync_playwright

    gone = study.copy()
    gone.loc[(gone["train"] == "beta") & (gone["rank"] == 1), "cv_auc"] = np.nan
    gone.loc[gone["train"] == "gamma", "cv_auc"] = 0.25
    (tmp_path / "made.html").write_text(made(gone))
    asked, errors = [], []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        shown = browser.new_page()
        shown.on("request", lambda request: asked.append(request.url))
        shown.on("pageerror", lambda error: errors.append(str(error)))

        def pressed(heading, column):
            features = shown.locator("table.features").first
            features.locator("th", has_text=heading).first.click()
            order = features.locator("th", has_text=heading).first.get_attribute("aria-sort")
            return order, features.locator(f"tbody tr td:nth-child({column})").all_inner_texts()

        shown.goto((project.folder / paths.REPORT / "index.html").as_uri())
        order, ids = pressed("feature", 3)
        assert (order, ids) == ("ascending", sorted(ids, key=int))
        assert len(set(ids)) > 2
        order, ids = pressed("feature", 3)
        assert (order, ids) == ("descending", sorted(ids, key=int, reverse=True))
        shown.goto((tmp_path / "made.html").as_uri())
        for expected in ("ascending", "descending"):
            order, shares = pressed("CV AUC", 4)
            assert order == expected
            assert shares[-1] == "–"  # a missing number is last either way
            assert shares[:-1] == sorted(shares[:-1], key=float, reverse=order == "descending")
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert errors == []

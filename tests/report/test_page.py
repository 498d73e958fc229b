"""The page: an answer on its first screen, true to its tables, and nothing that it asks of the network."""

import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from sae_transfer.analyses.analysis_registry import ANALYSES, TABLES
from sae_transfer.analyses.feature_examples import TABLE as EXAMPLES
from sae_transfer.core import paths
from sae_transfer.report.page import About, page
from sae_transfer.results import counts
from sae_transfer.results.headline import headline
from sae_transfer.results.sections import Cell, Heading, LookUp, Picture, Section
from sae_transfer.results.verdict import verdict
from sae_transfer.results.warnings import Notice
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


def made(study, sections=(), model="tiny", examples=(), warnings=(), link=lambda sae, feature: ""):
    """The page of a made-up study, with drawings that show nothing."""
    datasets = list(dict.fromkeys(study["test"]))
    health = {"sae": SAE, "layer": 2, "width": 64, "l0": 7.5, "explained_variance": np.nan, "dead": 0.25}
    tables = {
        "transfer": study,
        "headline": headline(study),
        "health": counts.HEALTH.frame([health | {"dataset": name} for name in (*datasets, "all")]),
        "examples": EXAMPLES.frame(examples),
    }
    tables = {name: rows for name, rows in tables.items() if len(rows)}
    svgs = dict.fromkeys(["means", "auc_by_n"], "<svg/>")
    about = About(model, {"seed": "0"}, dict.fromkeys(datasets, "somewhere"), link=link)
    return page(tables, svgs, about, verdict(tables, warnings), sections)


def words(text):
    """What a reader sees of a page."""
    return re.sub("<[^>]*>", " ", re.sub(r"<(style|script)>.*?</\1>", " ", text, flags=re.DOTALL))


def first_screen(text):
    return text[text.index("<header") : text.index("</header>")]


@pytest.fixture(scope="module")
def written(project):
    return (project.folder / paths.REPORT / "index.html").read_text()


def test_the_page_is_whole_and_asks_nothing_of_the_network(project, written):
    found = Page(written)
    assert not found.open
    assert not [tag for tag in ("link", "iframe", "object", "video") if found.of(tag)]
    assert found.of("script") == [{}]  # its own
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
    assert len(written) < 3e6


def test_the_first_screen_is_the_verdict_whose_numbers_and_one_heatmap(project, written):
    top, verdict = first_screen(written), project.study.verdict()
    assert f"<strong>{verdict.answer}.</strong> {verdict.sentence}" in top
    assert f'<p class="badge demo">{verdict.numbers_of}</p>' in top
    assert all(sentence in top for sentence in verdict.shown)
    assert top.count('<table class="heat">') - top.count(" hidden><div") == 1
    assert "<a " not in top


def test_a_model_of_ones_own_has_its_name_and_the_warnings_that_matter(study):
    notices = [Notice("serious", "x", "Bad & sad."), Notice("note", "x", "A note.")]
    top = first_screen(made(study, warnings=notices))
    assert '<p class="badge">Numbers of tiny, 1 SAE, 3 datasets.</p>' in top
    assert "<li>Bad &amp; sad.</li>" in top
    assert "A note." not in top
    assert 'class="warnings"' not in first_screen(made(study))


def test_at_most_nine_sections_with_a_claim_a_picture_and_a_table_and_every_table_is_told(project, written):
    tables = {name: rows for name in TABLES if len(rows := project.study.table(name))}
    assert "regimes" not in tables  # the study names no training set for it
    main = written.split("<h2 ")[1:]
    assert 5 <= len(main) - 1 <= 9
    for part in main[:-1]:
        open_, _, _ = part.partition("<details>")
        assert open_.count('class="claim"') == 1
        assert open_.count("<img") <= 1
        assert len(re.findall('<table class="plain', re.sub(r"<div data-is=[^>]* hidden>.*", "", open_))) <= 1
    for name, analysis in ANALYSES.items():
        if analysis.section and name in tables:
            section = analysis.section(tables)
            assert f'id="{section.id}"' in written
            assert section.claim in words(written).replace("&#39;", "'").replace("&#34;", '"')
            assert f"results/{section.source}.csv" in written
    assert "regimes" not in {attrs.get("id") for _, attrs in Page(written).tags}


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
        assert f"L0 {health.l0:.1f}<br>EV {health.explained_variance:.2f}<br>dead {health.dead:.0%}" in written
        assert f"data/demo/{name}.jsonl (table)" in written
    assert f'<th scope="row">torch</th><td><code>{about["torch"]}<' in written


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


def test_the_mean_over_saes_stands_first_where_there_are_several():
    two = table(DATASETS, {SAE: 2, "wide_2": 2})
    text = made(two)
    rows = two[(two["probe"] == "sparse_1") & two["selected"] & (two["train"] == "alpha") & (two["test"] == "beta")]
    mean = rows["auc"].mean()
    assert f"AUC {mean:.4f}, 95% interval {rows['auc_low'].mean():.4f} to {rows['auc_high'].mean():.4f}" in text
    assert "mean over SAEs" in first_screen(text)
    assert "mean over SAEs" not in first_screen(made(table(DATASETS, {SAE: 2})))


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
    assert not {"nan", "<na>", "&lt;na&gt;"} & set(words(text).lower().split())


def test_few_groups_say_why_there_is_no_interval():
    text = made(table(["alpha", "beta"], {SAE: 2}, n_groups={"beta": 5}))
    assert "no interval: 5 groups, fewer than 10" in text
    assert "smallest test set has 5 groups" in text


@pytest.mark.parametrize("sae", [True, False])
def test_one_dataset_or_no_sae_is_said_first(sae, study):
    text = made(table(["alpha"], {SAE: 2}) if sae else study[study["sae"] == ""])
    assert "<strong>Not tested.</strong>" in first_screen(text)
    assert not Page(text).open
    assert ("Which features?" in text) is sae
    assert "nan" not in words(text).lower().split()


def test_odd_names_are_escaped():
    odd = '<b>"Q&A"</b>'
    text = made(table([odd, "beta"], {SAE: 2}), model="<script>alert(1)</script>")
    assert "<b>&" not in text
    assert '<b>"' not in text
    assert "<script>alert" not in text
    assert "&lt;b&gt;&#34;Q&amp;A&#34;&lt;/b&gt;" in text


def test_what_a_feature_is_comes_with_it(study):
    own = (study["probe"] == "sparse_1") & (study["rank"] == 1) & (study["train"] == "alpha")
    feature = int(study.loc[own, "feature_ids"].iloc[0])
    fires = study.assign(density=np.where(own & (study["test"] == "beta"), 0.375, study["density"]))
    about = {"sae": SAE, "train": "alpha", "rank": 1, "feature": feature}
    examples = [
        about | {"what": "activates", "dataset": "gamma", "label": 1, "value": 9.0, "prompt": "Who <&> where?"},
        about | {"what": "wrong", "dataset": "beta", "label": 0, "value": 0.97, "prompt": "And why?"},
    ]
    text = made(fires, examples=examples, link=lambda sae, one: f"https://www.neuronpedia.org/gpt2-small/{sae}/{one}")
    section = text[text.index('id="features"') : text.index('id="n"')]
    assert "<small>gamma:</small> Who &lt;&amp;&gt; where?</td>" in section  # without unfolding anything
    assert "gamma, answerable, activation 9.00</small>\nWho &lt;&amp;&gt; where?" in section
    assert "beta, unanswerable, probability of answerable 0.97</small>\nAnd why?" in section
    assert f'<a href="https://www.neuronpedia.org/gpt2-small/{SAE}/{feature}">{feature}</a></td>' in section
    assert "<small>fires 38%</small>" in section


def test_a_section_shows_its_claim_a_picture_and_a_short_table_and_folds_the_rest(study):
    cells = [Cell("yes"), Cell("0.50", "0.40–0.60", "few & far", 0.5)]
    listed = LookUp("Numbers", [Heading("good", False), Heading("AUC", True)], [cells])
    long = LookUp("Many", [Heading("AUC", True)], [[Cell("x")]] * 15)
    own = Section("own", "My title", "My claim.", "My lead.", "mine", ["Two."], [Picture("none", "A")], [long, listed])
    text = made(study, sections=[own])
    part = text[text.index('<h2 id="own">My title</h2>') : text.index('<h2 id="more">')]
    shown, _, folded = part.partition("<details>")
    assert '<p class="claim">My claim.</p>' in shown
    assert '<th scope=row>yes</th><td class="n" data-sort="0.5" title="few &amp; far">0.50 <small>' in shown
    assert "Many" not in shown
    assert "My lead. Every row is in <code>results/mine.csv</code>." in folded
    assert "<li>Two.</li>" in folded
    assert "Many" in folded
    assert "<img" not in part  # nothing was drawn
    aside = made(study, sections=[Section("own", "My title", "My claim.", "My lead.", "mine", aside=True)])
    assert '<details id="own"><summary>My title</summary>' in aside
    assert '<a href="#own">' not in aside


def test_every_cell_tells_its_own_size(study):
    fewer = study.copy()
    pair = (fewer["train"] == "alpha") & (fewer["test"] == "beta")
    fewer.loc[pair, ["n_test", "n_overlap"]] = [28, 12]
    text = made(fewer)
    assert "trained on alpha (n = 240), tested on beta (n = 28)" in text
    assert "trained on gamma (n = 240), tested on beta (n = 40)" in text
    assert "beta<small>n = 28–40</small></th>" in text
    assert "alpha<small>n = 40</small></th>" in text


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_person_sees_the_answer_at_once_chooses_a_heatmap_sorts_a_table_and_prints_few_pages(tmp_path):
    from playwright.sync_api import sync_playwright

    gone = table(DATASETS, {SAE: 2, "wide_2": 2})
    gone.loc[(gone["train"] == "beta") & (gone["rank"] == 1), "cv_auc"] = np.nan
    gone.loc[gone["train"] == "gamma", "cv_auc"] = 0.25
    (tmp_path / "made.html").write_text(made(gone, warnings=[Notice("warning", "x", "Look out.")] * 3))
    asked, errors = [], []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 390, "height": 844})
        shown.on("request", lambda request: asked.append(request.url))
        shown.on("pageerror", lambda error: errors.append(str(error)))
        shown.goto((tmp_path / "made.html").as_uri())
        heat = shown.locator(".heat:visible")
        assert heat.count() == 1
        assert heat.bounding_box()["y"] + heat.bounding_box()["height"] < 844
        assert shown.evaluate("document.documentElement.scrollWidth") <= 390
        assert "mean over SAEs: AUC" in heat.locator("caption").inner_text()
        shown.select_option("select[name=sae]", "wide_2")
        shown.select_option("select[name=key]", "sparse_n")
        shown.select_option("select[name=column]", "delta_residual")
        caption = shown.locator(".heat:visible caption").inner_text()
        assert caption == "N-sparse SAE probe, wide_2: AUC minus residual stream probe"
        shown.select_option("select[name=key]", "residual")  # which has no difference to itself
        assert shown.locator(".none").is_visible()
        assert shown.locator(".heat:visible").count() == 1
        shown.select_option("select[name=feature]", "wide_2")
        assert shown.locator(".features:visible caption").first.inner_text().endswith("in wide_2")
        for expected in ("ascending", "descending"):
            features = shown.locator(".features:visible").first
            features.locator("th", has_text="CV AUC").first.click()
            assert features.locator("th", has_text="CV AUC").first.get_attribute("aria-sort") == expected
            shares = features.locator("tbody tr td:nth-child(3)").all_inner_texts()
            assert shares[-1] == "–"  # a missing number is last either way
            assert shares[:-1] == sorted(shares[:-1], key=float, reverse=expected == "descending")
        shown.click("text=How to read it")
        assert shown.locator("#read").get_attribute("open") is not None
        shown.reload()
        pages = shown.pdf(path=tmp_path / "printed.pdf", format="A4").count(b"/Type /Page\n")
        assert 0 < pages <= 12
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert errors == []

"""What a person sees in MLflow's pages: headless Chromium on the real server, with no network but loopback.

SCREENSHOTS=folder keeps a picture of every page that was asserted on.
"""

import json
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pandas as pd
import pytest
from test_tracking import free_port
from test_tracking_contents import HASHES, cell_runs

from sae_transfer.report.figures import drawings, heatmaps
from sae_transfer.results import cells
from sae_transfer.tracking import TrackingParams, contents, location, models, projection, server, view
from tables import table as made_up

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: `apt-get install chromium` brings one")
PARAMS = TrackingParams()
DATASETS = ("alpha", "beta")
NAME = "heatmap_narrow_2_sparse_1"
REPORT = b"<!doctype html><h1>What the report says</h1>"
PAIR = "alpha → beta · narrow_2"


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """(address, experiment id, table, runs by name) of a study in a real server."""
    folder = tmp_path_factory.mktemp("browser")
    table = made_up(DATASETS, {"narrow_2": 2}).round(6)  # as results/transfer.csv is
    drawings.save(heatmaps.heatmap(table, "narrow_2", "sparse_1"), folder, NAME)
    prompts = ["How old is Ann?", "Who left?"]
    listed = pd.DataFrame({"feature": [7, 19], "fires most on": prompts, "density": [0.25, 0.125]})
    features = {("narrow_2", train): {"sparse_1": listed} for train in DATASETS}
    params = {"seed": 0, "model": {"name": "tiny"}}
    numbers = {"out_of_domain.sparse_1": 0.625}
    shown = {"transfer": contents.transfer_table(table), "saes": pd.DataFrame({"sae": ["narrow_2"], "l0": [17.875]})}
    png = (folder / f"{NAME}.png").read_bytes()
    pages = {f"figures/{NAME}.png": png, "report.html": REPORT, **view.picture("narrow_2 sparse_1", png)}
    study = contents.study("workspace", params, numbers, ["Partly. It depends."], shown, pages, {})
    environment = pytest.MonkeyPatch()
    environment.delenv("MLFLOW_TRACKING_URI", raising=False)
    with ExitStack() as stack:
        stack.callback(environment.undo)
        probes = models.probes_run("workspace", table, HASHES, {})
        projection.project(PARAMS, "workspace", study, cell_runs(table, features), probes, folder / "mlruns")
        with location.opened(PARAMS, folder / "mlruns") as store:
            runs = {run.info.run_name: run for kind in ("cell", "study") for run in store.runs({"kind": kind})}
            experiment = store.experiment
        address = stack.enter_context(server.serving(folder / "mlruns", free_port()))
        yield address, experiment, table, runs


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def asked():
    """Every address outside of this machine that a page asked for; each is refused."""
    return []


@pytest.fixture
def visit(browser, shown, asked, request):
    address = shown[0]
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    # a first visit opens a panel for a chat on top of the table
    context.add_init_script('localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true")')

    def guard(route):
        if route.request.url.startswith((f"{address}/", "data:", "blob:")):
            route.continue_()
        else:
            asked.append(route.request.url)
            route.abort()

    context.route("**/*", guard)
    page = context.new_page()

    def go(link):
        page.goto("about:blank")  # another file of the same run would not be opened otherwise
        page.goto(link if link.startswith("http") else f"{address}/#{link}")
        return page

    yield go
    if "SCREENSHOTS" in os.environ:
        page.screenshot(path=Path(os.environ["SCREENSHOTS"]) / f"{request.node.name}.png")
    context.close()


def see(page, *texts):
    """Waits until each text stands somewhere on the page, where a person can see it."""
    for text in texts:
        page.get_by_text(text).first.wait_for(state="visible", timeout=20_000)


def test_the_shipped_view_is_the_transfer_table_with_the_columns_that_matter(visit, shown):
    address, _, table, _ = shown
    page = visit(server.shipped_view(address, PARAMS.experiment))
    see(page, "Transfer table", "sparse_1.auc_low")
    for column in view.CELLS:
        box = page.locator(f'.ag-header-cell[col-id="{column}"]').bounding_box()
        assert 0 < box["x"] < box["x"] + box["width"] < 1440, column  # it fits the screen
    rows = cells.headline(table)
    see(page, f"{len(DATASETS) ** 2} matching runs")
    rows = rows[(rows["train"] == "alpha") & (rows["test"] == "beta")].set_index(["space", "key"])
    number = page.locator(".ag-row", has_text=PAIR).first.get_attribute("row-index")
    told = " ".join(page.locator(f'.ag-row[row-index="{number}"]').all_inner_texts())
    single = rows.loc["narrow_2", "sparse_1"]
    values = [single[name] for name in ("auc", "auc_low", "auc_high", "delta_residual", "feature_ids")]
    values += [rows.loc["narrow_2", "sparse_n"]["auc"], rows.loc["layer_2", "residual"]["auc"]]
    for value in values:
        assert str(value) in told, value


def test_the_charts_view_has_a_heatmap_and_few_charts(visit, shown):
    address, experiment, _, _ = shown
    page = visit(view.link(address, experiment, view.CHARTS_VIEW))
    page.set_viewport_size({"width": 1440, "height": 2400})  # a chart is drawn when it comes into sight
    see(page, "narrow_2 sparse_1", "residual.auc vs. sparse_1.auc")
    picture = page.locator("img[src*='compressed']").first
    picture.wait_for(state="visible", timeout=20_000)
    assert picture.evaluate("image => image.naturalWidth") > 300
    sections = page.get_by_text("SAE probes out of domain", exact=False)
    assert f"({len(view.CHARTS)})" in sections.first.locator("xpath=../..").inner_text()
    assert page.get_by_text("shuffled_labels_sparse_1.auc").count() == 0  # MLflow's own charts are folded away


def test_the_page_models_shows_train_and_test(visit, shown):
    _, experiment, table, _ = shown
    page = visit(f"/experiments/{experiment}/models?workflowType=machine_learning")
    page.set_viewport_size({"width": 2600, "height": 1000})  # MLflow's own columns come first
    see(page, "alpha · narrow_2 sparse_1", "alpha (#00000000)", "beta (#11111111)")
    rows = cells.headline(table).query("space == 'narrow_2' and key == 'sparse_1' and train == 'alpha'")
    row = page.locator(".ag-row", has_text="alpha · narrow_2 sparse_1").first.get_attribute("row-index")
    told = " ".join(page.locator(f'.ag-row[row-index="{row}"]').all_inner_texts())
    for area in rows["auc"]:
        assert str(area) in told


def test_a_filter_finds_what_was_trained_on_one_and_tested_on_another(visit, shown):
    page = visit(server.shipped_view(shown[0], PARAMS.experiment))
    see(page, f"{len(DATASETS) ** 2} matching runs")
    box = page.locator("input[value*='tags.study']").element_handle()
    box.fill("params.train = 'alpha' and params.test = 'beta' and metrics.`sparse_1.auc` > 0")
    box.press("Enter")
    see(page, "1 matching run", PAIR)


def test_the_run_list_shows_one_parent_with_its_cells_below_it(visit, shown):
    _, experiment, _, _ = shown
    page = visit(f"/experiments/{experiment}/runs?workflowType=machine_learning")
    see(page, "workspace · tiny")
    assert page.get_by_text(PAIR).count() == 0
    page.locator(".ag-row").get_by_role("button").first.click()
    see(page, PAIR)


def test_a_run_shows_what_it_is_and_its_feature_table(visit, shown):
    _, experiment, _, runs = shown
    run = runs[PAIR].info.run_id
    page = visit(f"/experiments/{experiment}/runs/{run}")
    see(page, "Finished", "workspace · tiny", "domain", "sparse_1.features", "sparse_1.delta_residual", "n_train")
    page = visit(f"/experiments/{experiment}/runs/{run}/artifacts/sparse_1_features.json")
    see(page, "feature", "fires most on", "19", "How old is Ann?")
    page = visit(f"/experiments/{experiment}/runs/{run}/artifacts/all_settings.json")
    see(page, "test_variation", "default")


def test_the_parent_shows_the_report_a_heatmap_and_tables(visit, shown):
    _, experiment, _, runs = shown
    run = runs["workspace · tiny"].info.run_id
    page = visit(f"/experiments/{experiment}/runs/{run}")
    see(page, "out_of_domain.sparse_1", "0.625", "Partly. It depends.")
    page = visit(f"/experiments/{experiment}/runs/{run}/artifacts/report.html")
    page.frame_locator("iframe").get_by_text("What the report says").wait_for(state="visible", timeout=20_000)
    page = visit(f"/experiments/{experiment}/runs/{run}/artifacts/figures/{NAME}.png")
    picture = page.locator('img[src^="blob:"], img[src*="heatmap"]').first
    picture.wait_for(state="visible", timeout=20_000)
    assert picture.evaluate("image => image.naturalWidth") > 300
    page = visit(f"/experiments/{experiment}/runs/{run}/artifacts/saes.json")
    see(page, "l0", "17.875")
    page = visit(f"/experiments/{experiment}/runs/{run}/artifacts/transfer.json")
    see(page, "delta_residual", "mean_difference")


def test_the_compare_page_sets_runs_beside_one_another(visit, shown):
    _, experiment, _, runs = shown
    names = [f"alpha → {test} · narrow_2" for test in DATASETS]
    ids = json.dumps([runs[name].info.run_id for name in names])
    page = visit(f"/compare-runs?runs={ids}&experiments={json.dumps([experiment])}")
    see(page, "Comparing 2 Runs from 1 Experiment", *names)
    see(page, "random_sae_sparse_1.auc")  # of so many numbers only the first are on the page
    told = page.locator("body").inner_text()
    for name in names:
        assert str(np.round(runs[name].data.metrics["random_sae_sparse_1.auc"], 3)) in told


def test_no_page_needed_the_network(visit, shown, asked):
    """Last in this file: what the pages above asked for elsewhere is no more than MLflow's own news."""
    _, experiment, _, _ = shown
    see(visit(f"/experiments/{experiment}/runs?workflowType=machine_learning"), "workspace · tiny")
    request = Request(f"{shown[0]}/health")
    with urlopen(request, timeout=10) as answer:
        assert answer.status == 200
    assert [address for address in asked if "mlflow" not in address] == []

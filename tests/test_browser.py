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

from sae_transfer import cells, figures
from sae_transfer.tracking import TrackingParams, contents, location, projection, server
from tables import table as made_up
from test_tracking import free_port
from test_tracking_contents import families

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: `apt-get install chromium` brings one")
PARAMS = TrackingParams()
DATASETS = ("alpha", "beta")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """(address, experiment id, table, runs by name) of a study in a real server."""
    folder = tmp_path_factory.mktemp("browser")
    table = made_up(DATASETS, {"narrow_2": 2}).round(6)  # as results/transfer.csv is
    figures.save(figures.heatmap(table, "narrow_2", "sparse_1"), folder, "heatmap_narrow_2_sparse_1")
    features = {
        ("narrow_2", train, "sparse_1"): pd.DataFrame(
            {"feature": [7, 19], "rank": [1, 2], "density": [0.25, 0.125], "link": ["", ""]}
        )
        for train in DATASETS
    }
    params = {"seed": 0, "model": {"name": "tiny"}}
    numbers = {"narrow_2": {"sparse_1": {"auc_ood": 0.625}}}
    saes = pd.DataFrame({"sae": ["narrow_2"], "explained": [0.875]})
    study = contents.study("workspace", params, numbers, {"saes": saes}, "f", {})
    environment = pytest.MonkeyPatch()
    environment.delenv("MLFLOW_TRACKING_URI", raising=False)
    with ExitStack() as stack:
        stack.callback(environment.undo)
        with location.opened(PARAMS, folder / "mlruns") as store:
            png = folder / "heatmap_narrow_2_sparse_1.png"
            projection.project(store, "workspace", study, families(table, features), [png])
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
    context = browser.new_context(viewport={"width": 2400, "height": 1000})
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
    see(page, "Transfer table", "auc_low", "auc_high", "delta_residual", "n_features", "top_features")
    rows = cells.headline(table)
    rows = cells.without_baselines(rows[~rows["probe"].isin(cells.CONTROLS)])
    see(page, f"{len(rows)} matching runs")
    row = rows.query("space == 'narrow_2' and key == 'sparse_1' and train == 'alpha' and test == 'beta'").iloc[0]
    here = page.locator(".ag-row", has_text="alpha → beta · sparse_1 · narrow_2")
    number = here.first.get_attribute("row-index")
    told = " ".join(page.locator(f'.ag-row[row-index="{number}"]').all_inner_texts())
    for value in (row["auc"], row["auc_low"], row["auc_high"], row["delta_residual"]):
        assert str(value) in told
    for word in ("narrow_2", "sparse_1", "alpha", "beta", "OOD", "workspace"):
        assert word in told
    listed = page.locator(".ag-root").inner_text()
    assert not any(word in listed for word in ("shuffled", "target_trained", "pca", "verbal"))


def test_the_run_list_shows_one_parent_with_its_cells_below_it(visit, shown):
    _, experiment, _, _ = shown
    page = visit(f"/experiments/{experiment}/runs?workflowType=machine_learning")
    see(page, "workspace: tiny")
    assert page.get_by_text("alpha → beta · sparse_1 · narrow_2").count() == 0
    page.locator(".ag-row").get_by_role("button").first.click()
    see(page, "alpha → beta · sparse_1 · narrow_2")


def test_a_run_shows_what_it_is_and_its_feature_table(visit, shown):
    _, experiment, _, runs = shown
    run = runs["alpha → beta · sparse_1 · narrow_2"]
    page = visit(f"/experiments/{experiment}/runs/{run.info.run_id}")
    see(page, "Finished", "workspace: tiny", "domain", "top_features", "delta_residual", "n_train")
    see(page, f"alpha ({'0' * 32})")
    page = visit(f"/experiments/{experiment}/runs/{run.info.run_id}/artifacts/features.json")
    see(page, "feature", "density", "19", "0.125")
    page = visit(f"/experiments/{experiment}/runs/{run.info.run_id}/artifacts/all_settings.json")
    see(page, "test_variation", "default")


def test_the_parent_shows_a_heatmap_and_the_tables_of_the_analyses(visit, shown):
    _, experiment, _, runs = shown
    run = runs["workspace: tiny"].info.run_id
    page = visit(f"/experiments/{experiment}/runs/{run}/artifacts/figures/heatmap_narrow_2_sparse_1.png")
    picture = page.locator('img[src^="blob:"], img[src*="heatmap"]').first
    picture.wait_for(state="visible", timeout=20_000)
    assert picture.evaluate("image => image.naturalWidth") > 300
    page = visit(f"/experiments/{experiment}/runs/{run}/artifacts/saes.json")
    see(page, "explained", "0.875")
    page = visit(f"/experiments/{experiment}/runs/{run}/model-metrics")
    see(page, "narrow_2")


def test_the_compare_page_sets_runs_beside_one_another(visit, shown):
    _, experiment, _, runs = shown
    names = [f"alpha → {test} · sparse_1 · narrow_2" for test in DATASETS]
    ids = json.dumps([runs[name].info.run_id for name in names])
    page = visit(f"/compare-runs?runs={ids}&experiments={json.dumps([experiment])}")
    see(page, "Comparing 2 Runs from 1 Experiment", *names)
    see(page, "delta_residual")
    told = page.locator("body").inner_text()
    for name in names:
        assert str(np.round(runs[name].data.metrics["auc"], 3)) in told


def test_the_models_tab_is_the_train_by_test_matrix(visit, shown):
    _, experiment, table, _ = shown
    page = visit(f"/experiments/{experiment}/models?workflowType=machine_learning")
    see(page, "narrow_2_sparse_1_alpha", "narrow_2_sparse_1_beta", "Ready")
    for name in DATASETS:
        see(page, f"{name} (#")
    rows = cells.headline(table).query("space == 'narrow_2' and key == 'sparse_1' and train == 'alpha'")
    index = page.locator(".ag-row", has_text="narrow_2_sparse_1_alpha").first.get_attribute("row-index")
    told = " ".join(page.locator(f'.ag-row[row-index="{index}"]').all_inner_texts())
    for value in rows["auc"]:
        assert str(value) in told


def test_no_page_needed_the_network(visit, shown, asked):
    """Last in this file: what the pages above asked for elsewhere is no more than MLflow's own news."""
    _, experiment, _, _ = shown
    see(visit(f"/experiments/{experiment}/runs?workflowType=machine_learning"), "workspace: tiny")
    request = Request(f"{shown[0]}/health")
    with urlopen(request, timeout=10) as answer:
        assert answer.status == 200
    assert [address for address in asked if "mlflow" not in address] == []

"""The report stage: its files, that it runs again to the same bytes, and what it says where a table is missing."""

import json

import pytest

from commands import call
from sae_transfer.analyses.analysis_registry import TABLES
from sae_transfer.core import paths
from sae_transfer.core.errors import UserError
from sae_transfer.pipeline import __main__ as stages
from sae_transfer.pipeline import report
from sae_transfer.pipeline.study import Study
from sae_transfer.report.figures import drawings


def test_it_writes_every_figure_that_shows_something_as_png_and_svg(project):
    tables = {name: project.study.table(name) for name in TABLES}
    known = drawings.every({name: table for name, table in tables.items() if len(table)})
    empty = {"held_out"}  # two domains are too few for it
    files = {path.name for path in (project.folder / paths.FIGURES).iterdir()}
    assert files == {f"{name}.{ending}" for name in set(known) - empty for ending in ("png", "svg")}
    assert {"heatmap_narrow_3_sparse_1.png", "difference_narrow_3_sparse_n.svg", "means.png"} <= files


def test_a_second_run_gives_equal_bytes(project, fresh, capsys):
    """And names the page. What DVC's run wrote in another process is what this one writes."""
    for path in (fresh.folder / paths.REPORT).rglob("*.*"):
        path.unlink()
    report.run(Study.open("."))
    assert fresh.hashes("report") == project.hashes("report")
    assert capsys.readouterr().out == "open report/index.html in a browser\n"


@pytest.mark.parametrize("name", ["transfer", "bootstrap", "policies"])
def test_a_missing_table_is_one_line_that_says_what_makes_it(fresh, name):
    before = fresh.hashes("report")
    (fresh.folder / f"results/{name}.csv").unlink()
    with pytest.raises(UserError, match=rf"^results/{name}\.csv: not found; `dvc repro` makes it$"):
        report.run(Study.open("."))
    assert fresh.hashes("report") == before


def test_the_stage_tells_a_person_of_it_in_one_line(fresh, monkeypatch, capsys):
    (fresh.folder / "results/transfer.csv").unlink()
    code, out, error = call(monkeypatch, capsys, stages.main, "report")
    assert (code, out) == (2, "")
    assert error.count("\n") == 1
    assert "results/transfer.csv: not found; `dvc repro` makes it" in error


def test_what_was_run_is_told_and_features_link_to_their_pages(fresh):
    path = fresh.folder / "models/demo/saes/narrow_3/cfg.json"
    config = json.loads(path.read_text())
    path.unlink()  # a link to the file that others use
    path.write_text(json.dumps(config | {"metadata": {"neuronpedia_id": "gpt2-small/2-res-jb"}}))
    study = fresh.study
    about = report.about(study)
    assert about.settings == {"layers": "3", "dtype": "float32", "position": "last", "chat template": "no", "seed": "0"}
    assert about.link("narrow_3", 7) == "https://www.neuronpedia.org/gpt2-small/2-res-jb/7"

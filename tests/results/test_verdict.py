"""The verdict follows from intervals, whatever the numbers are."""

import json
import re

import numpy as np
import pytest

from sae_transfer.core import files, paths
from sae_transfer.results.headline import headline
from sae_transfer.results.verdict import Verdict, against, answer, verdict
from sae_transfer.results.warnings import Notice
from tables import table


def row(ood, half=0.02, home=0.95, lost_half=0.03):
    """A row of the headline table."""
    lost = ood - home
    return {
        "auc_in_domain": home,
        "auc_ood": ood,
        "auc_ood_low": ood - half,
        "auc_ood_high": ood + half,
        "auc_lost": lost,
        "auc_lost_low": lost - lost_half,
        "auc_lost_high": lost + lost_half,
    }


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (row(0.945, 0.01, lost_half=0.01), "Yes"),  # no more than 0.02 is lost
        (row(0.90, 0.01, lost_half=0.01), "Partly"),
        (row(0.94, 0.02, lost_half=0.03), "Undecided"),  # the loss may be 0.04 or none
        (row(0.55, 0.06, lost_half=0.06), "Undecided"),  # chance, or a bit above
        (row(0.50, 0.01, lost_half=0.02), "No"),
        (row(0.20, 0.05, lost_half=0.05), "No"),  # it points the wrong way
        (row(0.50, 0.01, home=0.5, lost_half=0.01), "No"),  # nothing is lost, for there was nothing
        (row(0.90, np.nan, lost_half=np.nan), "Undecided"),  # no interval
        (row(np.nan), "Not tested"),
        (None, "Not tested"),
    ],
)
def test_the_answer_follows_from_the_intervals(numbers, expected):
    assert answer(numbers) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.03, 0.05, "better than"),
        (-0.2, -0.03, "worse than"),
        (-0.01, 0.015, "as good as"),
        (0.005, 0.05, "not surely better or worse than"),
        (-0.1, 0.1, "not surely better or worse than"),
        (np.nan, np.nan, "not surely better or worse than"),
    ],
)
def test_two_hundredths_of_auc_are_equal_in_practice(low, high, expected):
    assert against({"delta_residual_low": low, "delta_residual_high": high}) == expected


def said(study, warnings=()):
    return verdict({"transfer": study, "headline": headline(study)}, warnings)


def test_the_sentence_has_its_numbers_with_intervals():
    study = table(["alpha", "beta", "gamma"], {"narrow_2": 2})
    rows, found = headline(study).set_index(["space", "key"]), said(study)
    for key, name in (("sparse_1", "auc_in_domain"), ("sparse_1", "auc_ood"), ("residual", "auc_ood")):
        of = rows.loc[("all", key)]
        assert f"{of[name]:.2f} ({of[name + '_low']:.2f} to {of[name + '_high']:.2f})" in found.sentence
    assert not found.demo
    assert found.numbers_of == "Numbers of tiny, 1 SAE, 3 datasets."


def test_demo_numbers_say_that_they_are(project):
    found = project.study.verdict()
    assert found.demo
    assert found.numbers_of.startswith("Demo numbers: ")


@pytest.mark.parametrize(
    ("datasets", "saes", "answered"),
    [(["alpha"], {"narrow_2": 2}, "no other dataset"), (["alpha", "beta"], {}, "no SAE")],
)
def test_what_was_not_tested_is_said(datasets, saes, answered):
    study = table(datasets, saes or {"narrow_2": 2})
    found = said(study if saes else study[study["sae"] == ""])
    assert found.answer == "Not tested"
    assert answered in found.sentence
    assert not re.search("nan", " ".join(found.lines))


def test_at_most_nine_lines_the_worst_warnings_first():
    study = table(["alpha", "beta", "gamma"], {"narrow_2": 2})
    notices = [Notice("serious", "x", f"warning {i}") for i in range(9)] + [Notice("note", "x", "a note")]
    found = said(study, notices)
    assert len(found.lines) <= 9
    assert [line for line in found.lines if line.startswith("!")] == [
        *(f"! warning {i}" for i in range(3)),
        "! 7 more in results/warnings.csv.",
    ]
    assert not [line for line in said(study).lines if line.startswith("!")]


def test_it_is_read_back_from_json_as_it_was(project):
    found = project.study.verdict()
    assert Verdict.from_json(json.loads(json.dumps(found.as_json()))) == found
    tables = {name: project.study.table(name) for name in ("transfer", "headline")}
    assert verdict(tables, found.warnings) == found
    assert files.read_json(project.folder / paths.RESULTS / "verdict.json")["answer"] == found.answer

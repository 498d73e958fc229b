import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from planted import layer_domain
from sae_transfer.analyses import selection
from sae_transfer.probing.evaluations import TransferParams, evaluation_of
from sae_transfer.probing.probe import Probe

B = {"a": 1, "b": 2, "c": 3}  # the datasets' seeds


def probe(kind, direction, rule, n_tied):
    about = {"selection": rule, "n_settings": 5, "n_tied": n_tied}
    return Probe(kind, "residual", np.asarray(direction, dtype=float), 0.0, C=1.0, **about)


@pytest.fixture(scope="module")
def tests():
    found = {}
    for name, seed in B.items():
        rows = layer_domain(seed, n=200, d=2, direction=[2.0, 0.0])
        found[name] = rows, evaluation_of(rows.labels, rows.groups, name, 0, TransferParams(resamples=200))
    return found


@pytest.fixture(scope="module")
def rows(tests):
    pair = probe("residual", [1, 0], "log_loss", 1), probe("other_rule", [0, 1], "auc", 5)
    found = [
        {"space": "layer_2", "train": "a", "probe": "residual"} | row for row in selection.rule_rows(pair, "a", tests)
    ]
    return selection.TABLE.frame(found)


def test_the_numbers_are_scikit_learns(rows, tests):
    own = rows.iloc[0]
    scores = {name: of.X[:, 0] for name, (of, _) in tests.items()}
    assert own["in_domain_auc"] == pytest.approx(roc_auc_score(tests["a"][0].labels, scores["a"]))
    others = [roc_auc_score(tests[name][0].labels, scores[name]) for name in ("b", "c")]
    assert own["ood_auc"] == pytest.approx(np.mean(others))
    p = 1 / (1 + np.exp(-scores["a"]))
    assert own["in_domain_brier"] == pytest.approx(brier_score_loss(tests["a"][0].labels, p))
    right = [((scores[name] >= 0) == (tests[name][0].labels == 1)).mean() for name in ("b", "c")]
    assert own["ood_accuracy"] == pytest.approx(np.mean(right))


def test_the_other_rule_is_set_against_the_studys(rows):
    own, other = rows.iloc[0], rows.iloc[1]
    assert (own["chosen"], other["chosen"]) == (True, False)
    assert np.isnan(own["ood_delta"])
    assert own["reason"] == "ood_delta: the study's rule itself"
    assert other["ood_delta"] == pytest.approx(other["ood_auc"] - own["ood_auc"])
    assert other["ood_delta_high"] < -0.2  # its direction says nothing


def test_one_dataset_has_no_other(tests):
    pair = probe("residual", [1, 0], "log_loss", 1), probe("other_rule", [0, 1], "auc", 5)
    found = pd.DataFrame(selection.rule_rows(pair, "a", {"a": tests["a"]}))
    assert found["ood_auc"].isna().all()
    assert found["reason"].str.contains("no other dataset").all()
    assert found["in_domain_auc"].notna().all()


def test_the_section_says_the_result_under_both_rules_and_counts_ties(rows):
    told = selection.section({"selection": rows})
    assert told.claim.startswith(
        f"The residual stream probe has a mean AUC out of domain of {rows['ood_auc'][0]:.3f} by "
    )
    assert f"log loss and {rows['ood_auc'][1]:.3f} by AUC; the rule changes it clearly in 1 of 1 cases." in told.claim
    (ties,) = told.told
    assert "by log loss in 0 of 1 cases (in 0 all settings are), by AUC in 1 of 1 cases (in 1 all settings are)" in ties

"""A threshold that was moved on purpose is told from a ranking that was destroyed; numbers against brute force."""

from functools import partial

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit

from planted import QUICK, balanced, groups_of, layer_domain
from sae_transfer.analyses.calibration import (
    DRAWS,
    TABLE,
    Scored,
    bias_shift,
    bias_updates,
    calibration_error,
    calibration_rows,
    measured,
    ranking,
    section,
    threshold,
)
from sae_transfer.probing import evaluations, residual_probes
from sae_transfer.probing.cross_validation import cross_validate
from sae_transfer.stats import roc, thresholds

DIRECTION = np.r_[3.0, np.zeros(19)]


def bootstrap(labels, size=2, resamples=300):
    return evaluations.evaluation_of(
        labels, groups_of(len(labels), size), "b", 0, evaluations.TransferParams(resamples=resamples)
    )


def scored(seed, n=240, gap=5.0, shift=0.0):
    rng = np.random.default_rng(seed)
    labels = balanced(rng, n)
    return Scored(gap * (labels - 0.5) + rng.normal(size=n) + shift, labels)


def updates(target, sizes=(0, 16, 64)):
    return {k: bias_updates(target, k, np.random.default_rng(k)) for k in sizes}


def rows_for(test, *, target=None):
    on_a = scored(9)
    own = bootstrap(on_a.labels)
    reference = (evaluations.bootstrapped_auc(on_a.logits, own), own.effective_groups)
    return calibration_rows(test.logits, bootstrap(test.labels), scored(0), updates(target or test), reference)


@pytest.mark.parametrize(
    ("gap", "shift", "verdict"),
    [(5.0, 0.0, "holds"), (5.0, 3.0, "shifted threshold"), (0.0, 0.0, "lost ranking"), (1.5, -4.0, "both")],
)
def test_a_moved_threshold_is_told_from_a_lost_ranking(gap, shift, verdict):
    rows = rows_for(scored(1, gap=gap, shift=shift), target=scored(2, gap=gap, shift=shift))
    assert {row["verdict"] for row in rows} == {verdict}
    plain, _, most = rows
    if verdict == "shifted threshold":
        assert plain["accuracy"] < 0.8 < 0.95 < most["accuracy"]
        assert plain["accuracy_low"] <= plain["accuracy"] <= plain["accuracy_high"]
        assert most["accuracy_regained"] == pytest.approx(most["accuracy"] - plain["accuracy"])
        assert plain["tpr_at_source_fpr5"] < most["tpr_at_source_fpr5"]
        assert plain["tpr_at_fpr_5"] == most["tpr_at_fpr_5"] > 0.9
        assert most["ece"] < plain["ece"]
        assert most["brier"] < plain["brier"]
    if verdict == "lost ranking":
        assert abs(most["accuracy_regained"]) < 0.1
        assert plain["auc_lost_low"] > 0.3


def test_labels_of_b_are_marked():
    rows = rows_for(scored(1))
    assert [row["uses_target"] for row in rows] == [False, True, True]
    assert [row["draws"] for row in rows] == [1, DRAWS, DRAWS]
    few = "tpr_at_fpr_1: 120 answerable rows, fewer than 500"
    assert rows[0]["reason"] == f"{few}; accuracy_regained: no labels of B; accuracy_sd: fewer than two draws"
    assert rows[1]["accuracy_sd"] > 0
    made = TABLE.frame(row | {"train": "a", "test": "b", "in_domain": False, "probe": "residual"} for row in rows)
    told = section({"calibration": made.assign(space="s")})
    plain, most = rows[0]["accuracy"], rows[2]["accuracy"]
    assert told.claim.endswith(f"is {plain:.2f} for the residual stream probe ({most:.2f} with 64 labels of B).")
    counts = dict(zip((heading.text for heading in told.tables[0].headings), told.tables[0].rows[0], strict=True))
    assert (counts["holds"].text, counts["ranking lost"].text) == ("1", "0")
    assert section({"calibration": made.assign(in_domain=True, space="s")}).claim == "It takes two datasets to tell."


def test_in_domain_there_is_no_verdict():
    test = scored(1)
    rows = calibration_rows(test.logits, bootstrap(test.labels), scored(0), updates(test, (0, 16)), None)
    assert {row["verdict"] for row in rows} == {"in domain"}
    assert "auc_lost: A's own test rows" in rows[0]["reason"]


def test_the_threshold_is_the_highest_that_raises_few_enough_false_alarms():
    rng = np.random.default_rng(0)
    rows = Scored(np.round(rng.normal(size=200), 1), balanced(rng, 200))  # with ties
    for share in (0.0, 0.01, 0.05, 0.5):
        at, answerable = threshold(rows, share), rows.logits[rows.labels == 1]
        higher = rows.logits[rows.logits > at]
        assert np.mean(answerable <= at) <= share
        assert np.mean(answerable <= higher.min()) > share
    assert threshold(Scored(np.zeros(4), np.array([0, 1, 0, 1])), 0.05) == -np.inf
    assert np.isnan(threshold(Scored(np.zeros(2), np.zeros(2, int)), 0.05))


def test_the_bias_is_the_one_of_least_log_loss():
    rng = np.random.default_rng(0)
    x, y = 3 * rng.normal(size=(5, 16)), np.array([balanced(rng, 16) for _ in range(5)])
    for x_row, y_row, found in zip(x, y, bias_shift(x, y), strict=True):
        best = minimize_scalar(lambda b: np.sum(np.logaddexp(0, x_row + b) - y_row * (x_row + b)), bounds=(-20, 20))  # noqa: B023
        assert found == pytest.approx(best.x, abs=1e-3)
    assert bias_shift(np.array([[-300.0, 400.0]]), np.array([[0, 1]])) == pytest.approx(-50)


def test_what_is_caught_on_resamples_is_what_repeated_rows_say():
    test = scored(3, n=60, gap=1.0)
    test = Scored(np.round(test.logits, 1), test.labels)
    resampled = bootstrap(test.labels, resamples=20)
    found = ranking(test.logits, resampled)
    for r, weights in enumerate(resampled.weights.astype(int)):
        x, y = np.repeat(test.logits, weights), np.repeat(test.labels, weights)
        for percent in (1, 5):
            expected = roc.detection_rate(x, y, percent / 100)
            assert found[f"tpr_at_fpr_{percent}"][1][r] == pytest.approx(expected)
    assert found["tpr_at_fpr_5"][0] == roc.detection_rate(test.logits, test.labels, 0.05)


def test_exactly_as_many_false_alarms_as_allowed_are_allowed():
    labels = np.repeat([1, 0], 20)
    scores = np.r_[-5.0, np.ones(19), np.full(10, -6.0), np.full(9, -1.0), 2.0]  # one answerable row below 9 others
    test = evaluations.Evaluation(labels, groups_of(40), np.ones((1, 40)))
    value, spread = ranking(scores, test)["tpr_at_fpr_5"]
    assert value == spread[0] == 19 / 20


def brute_ece(p, y):
    bins = [(p >= i / 10) & ((p < (i + 1) / 10) | (i == 9)) for i in range(10)]
    return sum(abs(np.sum(p[b] - y[b])) for b in bins) / len(p)


def test_measures_are_what_a_loop_over_draws_and_repeated_rows_says():
    test, moved = scored(4, n=80, gap=2.0), np.array([-1.0, 0.3])
    resampled = bootstrap(test.labels, resamples=10)
    found = measured(test.logits, moved, {5: -1.5}, resampled)

    def slow(x, y):
        each = []
        for shift in moved:
            p, alarm = expit(x + shift), x + shift <= -1.5
            each.append((thresholds.accuracy(p, y), np.mean((p - y) ** 2), alarm[y == 0].mean(), alarm[y == 1].mean()))
        return np.mean(each, axis=0)

    names = ("accuracy", "brier", "tpr_at_source_fpr5", "fpr_at_source_fpr5")
    np.testing.assert_allclose([found[name][0] for name in names], slow(test.logits, test.labels))
    for r, weights in enumerate(resampled.weights.astype(int)):
        expected = slow(np.repeat(test.logits, weights), np.repeat(test.labels, weights))
        np.testing.assert_allclose([found[name][1][r] for name in names], expected)


def test_the_calibration_error_is_the_mean_over_draws():
    test, moved = scored(4, n=80, gap=2.0), np.array([-1.0, 0.3])
    p = expit(test.logits[:, None] + moved)
    expected = np.mean([brute_ece(column, test.labels) for column in p.T])
    assert calibration_error(p, bootstrap(test.labels))[0] == pytest.approx(expected)


def test_a_calibrated_probe_stays_below_what_chance_gives_and_a_wrong_one_does_not():
    rng, below, wrong = np.random.default_rng(0), 0, 0
    for _ in range(100):
        p = rng.beta(0.5, 0.5, size=200)
        labels = (rng.random(200) < p).astype(int)
        error, by_chance = calibration_error(p[:, None], bootstrap(labels, resamples=100))
        below += error < by_chance
        error, by_chance = calibration_error(p[:, None] ** 4, bootstrap(labels, resamples=100))
        wrong += error > by_chance
        assert error > 0.03  # so that 0 would be a wrong null
    assert below >= 88
    assert wrong >= 95


def test_the_threshold_lies_between_two_logits():
    silent = Scored(np.repeat([-1.0, 0.0, 2.0], [10, 100, 100]), np.repeat([0, 0, 1], [10, 100, 100]))
    assert threshold(silent, 0.05) == 1.0
    assert threshold(Scored(silent.logits, 1 - silent.labels), 0.05) == -np.inf


def test_a_probe_that_never_ranked_is_no_probe_that_holds():
    test, on_a = scored(1, gap=0.0), scored(9, gap=0.0)
    own = bootstrap(on_a.labels)
    reference = (evaluations.bootstrapped_auc(on_a.logits, own), own.effective_groups)
    rows = calibration_rows(test.logits, bootstrap(test.labels), scored(0), updates(test), reference)
    assert {row["verdict"] for row in rows} == {"no ranking in domain"}


def test_intervals_that_say_little_leave_it_undecided():
    few = scored(1, n=40, gap=1.5)
    on_a = scored(9, n=40, gap=1.5)
    own = bootstrap(on_a.labels)
    reference = (evaluations.bootstrapped_auc(on_a.logits, own), own.effective_groups)
    rows = calibration_rows(few.logits, bootstrap(few.labels), scored(0, gap=1.5), updates(few, (0, 16)), reference)
    assert {row["verdict"] for row in rows} == {"undecided"}


def test_rows_are_scored_by_probes_that_did_not_see_them():
    """A threshold on A's training rows reads the out-of-fold logits that a probe is saved with."""
    method, params = partial(residual_probes.residual, params=QUICK), QUICK.model_copy(update={"n_folds": 5})
    own, blind = [], []
    for seed in range(100, 116):
        noise = layer_domain(seed)
        (probe,) = cross_validate(method, noise, 0, params)
        own.append(roc.auc(probe.logits(probe.score(noise.X)), noise.labels))
        blind.append(roc.auc(probe.oof_logits, noise.labels))
    assert np.mean(own) > 0.65
    assert np.mean(blind) == pytest.approx(0.5, abs=0.04)
    train = layer_domain(1, direction=DIRECTION)
    assert roc.auc(cross_validate(method, train, 0, params)[0].oof_logits, train.labels) > 0.9


def test_draws_are_balanced_and_repeat():
    rows = scored(0)
    again = [bias_updates(rows, 16, np.random.default_rng(1)) for _ in range(2)]
    np.testing.assert_array_equal(*again)
    assert len(again[0]) == DRAWS
    smallest = Scored(rows.logits[:16], np.repeat([0, 1], 8))
    every = bias_updates(smallest, 16, np.random.default_rng(1))  # sixteen labels are all that there are
    np.testing.assert_allclose(every, bias_shift(smallest.logits[None], smallest.labels[None])[0])
    flat = Scored(1e-6 * rows.logits, rows.labels)  # a strong penalty's logits: a random base rate would outweigh them
    assert np.abs(bias_updates(flat, 16, np.random.default_rng(1))).max() < 1e-5


def test_bad_input_is_missing_with_its_reason():
    test = scored(1)
    few = Scored(test.logits[:20], test.labels[:20])
    rows = rows_for(test, target=few)
    assert np.isnan(rows[2].get("accuracy", np.nan))
    assert "accuracy: B's training split has fewer than 32 rows of a class" in rows[2]["reason"]
    assert rows[2]["verdict"] == "holds"  # as 16 labels of B say
    one_class = Scored(test.logits, np.ones_like(test.labels))
    row = rows_for(one_class, target=test)[0]
    assert np.isnan(row["auc"])
    assert np.isnan(row["tpr_at_source_fpr5"])
    assert row["fpr_at_source_fpr5"] >= 0
    assert row["reason"].startswith("auc: one class; ")
    assert row["verdict"] == "undecided"
    constant = rows_for(Scored(np.zeros(240), test.labels))
    assert constant[0]["auc"] == 0.5
    assert constant[0]["verdict"] == "lost ranking"
    groups = bootstrap(test.labels, size=60)
    row = calibration_rows(test.logits, groups, scored(0), {0: np.zeros(1)}, None)[0]
    assert np.isnan(row["accuracy_low"])
    assert "accuracy: 4 groups, fewer than 10" in row["reason"]

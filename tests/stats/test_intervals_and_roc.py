from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from sae_transfer.stats import intervals, p_values, roc, thresholds

SEEDS = range(20)


def scored(seed, n=60, levels=8):
    """Labels and scores with many ties."""
    rng = np.random.default_rng(seed)
    labels = np.r_[0, 1, rng.integers(0, 2, n - 2)]
    return labels, rng.integers(0, levels, n) + labels * rng.integers(0, 2, n) * 1.0


# AUC


@pytest.mark.parametrize("levels", [2, 8, 10**9])
def test_auc_equals_scikit_learns_with_and_without_ties(levels):
    for seed in SEEDS:
        labels, scores = scored(seed, levels=levels)
        assert roc.auc(scores, labels) == pytest.approx(reference.roc_auc_score(labels, scores), abs=1e-12)


def test_weighted_auc_equals_scikit_learns_sample_weights():
    for seed in SEEDS:
        labels, scores = scored(seed)
        weights = np.random.default_rng(seed).integers(0, 4, (5, len(labels))).astype(float)
        expected = [reference.roc_auc_score(labels, scores, sample_weight=w) for w in weights]
        found = roc.weighted_auc(scores, labels, weights)
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_auc_depends_on_the_order_of_the_scores_alone():
    labels, scores = scored(1)
    shuffled = np.random.default_rng(0).permutation(len(labels))
    area = roc.auc(scores, labels)
    assert roc.auc(np.exp(scores), labels) == area
    assert roc.auc(scores[shuffled], labels[shuffled]) == pytest.approx(area, abs=1e-12)
    assert roc.auc(-scores, labels) == pytest.approx(1 - area, abs=1e-12)
    assert roc.auc(np.zeros(len(labels)), labels) == 0.5


@pytest.mark.parametrize("label", [0, 1])
def test_auc_of_one_class_is_missing(label):
    assert np.isnan(roc.auc([1.0, 2.0], [label, label]))
    weighted = roc.weighted_auc([1.0, 2.0], [0, 1], [[1, 1], [label, 1 - label]])
    assert weighted[0] == 1
    assert np.isnan(weighted[1])


# bootstrap


def test_whole_groups_are_resampled():
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    weights = intervals.group_weights(groups, 2000, np.random.default_rng(0))
    first = [1, 0, 3]  # a row of a, of b, of c
    np.testing.assert_array_equal(weights, weights[:, [2, 4, 0, 3, 1, 5]])
    np.testing.assert_array_equal(weights[:, first].sum(axis=1), 3)
    np.testing.assert_allclose(weights[:, first].mean(axis=0), 1, atol=4 * np.sqrt(2 / 3 / 2000))
    assert weights.max() == 3


def test_resamples_repeat_with_the_seed():
    one, same, other = (intervals.group_weights(range(20), 5, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_an_interval_with_the_variance_of_independent_rows_is_wilsons():
    """200 rows, a share of 0.7: the bootstrap's variance is p(1 - p)/n, and Student's quantile is near 1.96."""
    rng = np.random.default_rng(0)
    found = intervals.interval(0.7, rng.normal(0.7, np.sqrt(0.21 / 200), 100_000), 200)
    expected = stats.binomtest(140, 200).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=2e-3)
    assert found.reason == ""


def test_an_interval_skips_resamples_of_one_class_and_grows_with_the_variance():
    resampled = np.random.default_rng(0).normal(0.8, 0.05, 1000)
    found = intervals.interval(0.8, resampled, 50)
    assert intervals.interval(0.8, np.r_[np.nan, resampled], 50) == found
    wide = intervals.interval(0.8, 0.8 + 2 * (resampled - 0.8), 50)
    assert wide.low < found.low < 0.8 < found.high < wide.high


def test_intervals_are_mirrored_with_their_shares():
    resampled = np.random.default_rng(0).normal(0.9, 0.03, 1000)
    found, mirrored = intervals.interval(0.9, resampled, 40), intervals.interval(1 - 0.9, 1 - resampled, 40)
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((found.low, found.high))


@pytest.mark.parametrize(("n_groups", "low"), [(10, 0.66), (50, 0.92), (200, 0.98), (1000, 0.995)])
def test_a_perfect_sample_has_a_lower_bound_below_1_that_rises_with_the_groups(n_groups, low):
    found = intervals.interval(1.0, np.ones(100), n_groups)
    assert found.high == 1
    assert found.low == pytest.approx(low, abs=0.1 * (1 - low) + 0.005)
    exact = 0.025 ** (2 / n_groups)  # Clopper and Pearson, were only half the groups informative
    assert found.low > exact - 0.1


def test_the_interval_of_a_difference_or_of_a_percentage_is_refused():
    for value in (-0.1, 1.1):
        with pytest.raises(ValueError, match="difference_interval"):
            intervals.interval(value, [0.0], 50)


def test_an_area_rests_on_the_rarer_label():
    assert intervals.effective_groups([0, 1] * 10, range(20)) == 20
    assert intervals.effective_groups([0, 1] * 10, np.repeat(range(10), 2)) == 10  # both labels in every group
    assert intervals.effective_groups([1] * 2 + [0] * 18, range(20)) == pytest.approx(4 * 2 * 18 / 20)
    assert intervals.effective_groups([1, 1], [0, 1]) == 0


def test_one_large_group_counts_as_few():
    large = np.r_[np.zeros(66), np.arange(1, 100)]  # 40% of 165 rows
    assert intervals.equal_groups(large) == pytest.approx(165**2 / (66**2 + 99))
    assert intervals.equal_groups(np.repeat(range(10), 7)) == pytest.approx(10)
    assert intervals.equal_groups([]) == 0
    labels = np.arange(165) % 2
    assert intervals.effective_groups(labels, large) < 0.1 * intervals.effective_groups(labels, range(165))


def differ(one, other, correlation, n_groups=100):
    """The interval of a difference whose bootstraps have sd 0.03 and correlate."""
    noise = np.random.default_rng(0).multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], 20_000)
    resampled, resampled_other = one + 0.03 * noise[:, 0], other + 0.03 * noise[:, 1]
    return intervals.difference_interval(one, other, resampled, resampled_other, n_groups)


def test_a_difference_has_about_the_interval_of_a_normal_one():
    for correlation in (0.0, 0.5, 0.9):
        found = differ(0.55, 0.5, correlation, 1000)
        half = 1.96 * 0.03 * np.sqrt(2 - 2 * correlation)
        assert found.value == pytest.approx(0.05)
        assert (found.low, found.high) == pytest.approx((0.05 - half, 0.05 + half), rel=0.05, abs=0.004)


def test_a_difference_turned_round_has_the_interval_turned_round():
    found, turned = differ(0.9, 0.8, 0.5), differ(0.8, 0.9, 0.5)
    assert (-turned.high, -turned.low) == pytest.approx((found.low, found.high), abs=2e-3)


def test_two_perfect_areas_may_differ():
    for n_groups in (20, 200):
        found = intervals.difference_interval(1.0, 1.0, np.ones(9), np.ones(9), n_groups)
        assert found.value == 0
        assert -found.low == found.high == pytest.approx(2 / n_groups, rel=0.1)


def test_what_scores_alike_does_not_differ():
    resampled = np.random.default_rng(0).normal(0.9, 0.02, 500)
    found = intervals.difference_interval(0.9, 0.9, resampled, resampled, 100)
    assert (found.value, found.low, found.high) == pytest.approx((0, 0, 0), abs=1e-6)


def test_a_difference_of_too_few_groups_or_of_one_class_has_no_interval():
    found = intervals.difference_interval(0.8, 0.7, [0.7, 0.9], [0.7, 0.9], 5)
    assert found.value == pytest.approx(0.1)
    assert np.isnan([found.low, found.high]).all()
    assert found.reason == "5 groups, fewer than 10"
    assert intervals.difference_interval(np.nan, np.nan, [np.nan], [np.nan], 50).reason == "one class"


@pytest.mark.parametrize("auc", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("n_groups", [15, 60])
def test_intervals_cover_the_true_area(auc, n_groups):
    """The percentile bootstrap covers 53% at 0.99 with 15 groups; benchmarks/coverage.py has the whole grid."""
    rng, hits = np.random.default_rng(0), 0
    groups = np.repeat(np.arange(n_groups), 2)
    labels = groups % 2
    for _ in range(200):
        noise = (rng.normal(size=n_groups)[groups] + rng.normal(size=len(groups))) / np.sqrt(2)
        scores, weights = noise + labels * np.sqrt(2) * stats.norm.ppf(auc), intervals.group_weights(groups, 200, rng)
        resampled = roc.weighted_auc(scores, labels, weights)
        n_effective = intervals.effective_groups(labels, groups)
        found = intervals.interval(roc.auc(scores, labels), resampled, n_effective)
        hits += found.low <= auc <= found.high
    assert hits >= 0.92 * 200


def test_few_groups_have_no_interval_but_a_reason():
    found = intervals.interval(0.8, [0.7, 0.9], 9)
    assert found.value == 0.8
    assert np.isnan([found.low, found.high]).all()
    assert found.reason == "9 groups, fewer than 10"


def test_an_interval_takes_rounding_and_counts_whole_groups():
    assert intervals.interval(1 + 1e-15, np.ones(9), 50) == intervals.interval(1.0, np.ones(9), 50)
    assert intervals.interval(0.8, [0.7, 0.9], 9.9).reason == "9 groups, fewer than 10"


def test_a_missing_value_has_no_interval_but_a_reason():
    found = intervals.interval(np.nan, [0.7, 0.9], 50)
    assert np.isnan([found.value, found.low, found.high]).all()
    assert found.reason == "one class"


def test_mean_interval_equals_scipys_student_interval():
    values = np.random.default_rng(0).normal(size=7)
    found = intervals.mean_interval(values)
    low, high = stats.t.interval(0.95, 6, loc=values.mean(), scale=stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low, high), abs=1e-12)


def test_one_repeat_has_no_interval_but_a_reason():
    found = intervals.mean_interval([0.5])
    assert found.value == 0.5
    assert np.isnan([found.low, found.high]).all()
    assert found.reason == "one repeat"


# thresholds


def test_threshold_metrics_equal_scikit_learns():
    for seed in SEEDS:
        labels, scores = scored(seed)
        p = scores / 8  # 0.5 occurs, and counts as answerable
        found, guess = thresholds.threshold_metrics(p, labels), (p >= 0.5).astype(int)
        assert found["f1"] == pytest.approx(reference.f1_score(labels, guess, pos_label=0), abs=1e-12)
        assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, guess), abs=1e-12)
        assert found["brier"] == pytest.approx(np.mean((p - labels) ** 2), abs=1e-12)
        assert thresholds.accuracy(p, labels) == pytest.approx(reference.accuracy_score(labels, guess), abs=1e-12)


def test_brier_equals_scikit_learns():
    labels, scores = scored(0)
    found = thresholds.threshold_metrics(scores / 10, labels)["brier"]
    assert found == pytest.approx(reference.brier_score_loss(labels, scores / 10), abs=1e-12)


def test_what_one_class_leaves_undefined_is_missing():
    found = thresholds.threshold_metrics([0.9, 0.4], [1, 1])
    assert np.isnan(found["balanced_accuracy"])
    assert np.isnan(thresholds.threshold_metrics([0.9, 0.8], [1, 1])["f1"])


def test_weighted_accuracy_is_the_accuracy_of_the_repeated_rows():
    labels, scores = scored(3)
    groups = np.arange(len(labels)) ** 2 // 300  # of unequal size
    weights = intervals.group_weights(groups, 10, np.random.default_rng(0))
    repeated = [np.repeat(np.arange(len(labels)), w.astype(int)) for w in weights]
    expected = [thresholds.accuracy(scores[rows] / 8, labels[rows]) for rows in repeated]
    np.testing.assert_allclose(thresholds.weighted_accuracy(scores / 8, labels, weights), expected, atol=1e-12)


def caught(scores, labels, false_alarms):
    """By trying every threshold."""
    alarms = [scores <= threshold for threshold in np.r_[-np.inf, np.unique(scores)]]
    rates = [(alarm[labels == 0].mean(), alarm[labels == 1].mean()) for alarm in alarms]
    return max(true for true, false in rates if false <= false_alarms)


@pytest.mark.parametrize("levels", [3, 8, 10**9])
@pytest.mark.parametrize("false_alarms", [0.0, 0.01, 0.05, 0.3])
def test_detection_rate_equals_trying_every_threshold(levels, false_alarms):
    for seed in SEEDS:
        labels, scores = scored(seed, n=200, levels=levels)
        found = roc.detection_rate(scores, labels, false_alarms)
        false, true, _ = reference.roc_curve(labels, -scores, pos_label=0, drop_intermediate=False)
        assert found == pytest.approx(caught(scores, labels, false_alarms), abs=1e-12)
        assert found == pytest.approx(true[false <= false_alarms].max(), abs=1e-12)


def test_an_allowance_is_used_to_the_last_row():
    labels = np.r_[np.ones(100), np.zeros(100)]
    scores = np.r_[np.arange(100.0), np.full(99, -1.0), 0.5]
    assert roc.detection_rate(scores, labels, 0.01) == 1
    assert roc.detection_rate(scores, labels, 0.0) == 0.99


def test_detection_rate_of_one_class_is_missing():
    assert np.isnan(roc.detection_rate([1.0, 2.0], [1, 1], 0.05))
    assert np.isnan(roc.detection_rate([1.0, 2.0], [0, 0], 0.05))


# p-values


def test_student_p_is_that_of_the_interval():
    """p is 5% where the interval ends at 0, below where it excludes 0, and scipy's for the same t."""
    for value in (0.02, 0.05, 0.3, -0.05):
        found = differ(0.5 + value, 0.5, 0.5, 30)
        p = p_values.student_p(found)
        assert p == pytest.approx(2 * stats.t.sf(abs(value) / found.se, 28))
        assert (p < 0.05) == (found.low > 0 or found.high < 0)
        bound = abs(found.high - found.low) / 2
        assert p_values.student_p(replace(found, value=bound)) == pytest.approx(0.05)


def test_student_p_is_missing_without_an_interval_and_1_without_a_difference():
    assert np.isnan(p_values.student_p(intervals.difference_interval(0.8, 0.7, [0.7, 0.9], [0.7, 0.9], 5)))
    resampled = np.random.default_rng(0).normal(0.9, 0.02, 500)
    for other in (0.9, 0.9 - 1e-16):  # a mean over draws rounds
        same = intervals.difference_interval(0.9, other, resampled, resampled, 100)
        assert p_values.student_p(same) == 1


def two_areas(rng, strengths, n_groups=40, resamples=200):
    """The difference of the AUC of two scores on the same grouped rows; they share half of their noise."""
    groups = np.repeat(np.arange(n_groups), 2)
    labels, weights = groups % 2, intervals.group_weights(groups, resamples, rng)
    shared = rng.normal(size=n_groups)[groups]
    scores = [(shared + rng.normal(size=len(groups))) / np.sqrt(2) + labels * strength for strength in strengths]
    (one, drawn), (other, drawn_other) = (
        (roc.auc(score, labels), roc.weighted_auc(score, labels, weights)) for score in scores
    )
    n_effective = intervals.effective_groups(labels, groups)
    return intervals.difference_interval(one, other, drawn, drawn_other, n_effective)


@pytest.mark.parametrize("strength", [0.0, 1.0, 2.5])
def test_student_p_is_small_by_chance_no_more_often_than_it_says(strength):
    rng = np.random.default_rng(0)
    p = np.array([p_values.student_p(two_areas(rng, (strength, strength))) for _ in range(400)])
    assert (p < 0.05).mean() < 0.05 + 0.025
    assert (p < 0.2).mean() < 0.2 + 0.05
    assert p.max() > 0.8


def test_what_surely_differs_passes_the_correction_over_thirty_comparisons():
    """100 resamples floor a bootstrap's p at 2/101, which no correction over 30 comparisons would let pass."""
    rng = np.random.default_rng(0)
    p = [p_values.student_p(two_areas(rng, strengths, resamples=100)) for strengths in [(2.5, 0.2)] + [(1.0, 1.0)] * 29]
    found = p_values.holm(p)
    assert found[0] < 0.05
    assert (found[1:] > 0.05).all()


def test_holm_steps_down_from_the_smallest():
    # worked by hand: 0.005 * 4, 0.01 * 3, then 0.03 * 2 and 0.04 * 1, which may not fall again
    np.testing.assert_allclose(p_values.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(p_values.holm([0.6, 0.9]), [1, 1])


def test_holm_leaves_out_what_is_missing():
    found = p_values.holm([0.01, np.nan, 0.03])
    np.testing.assert_allclose(found[[0, 2]], [0.02, 0.03])
    assert np.isnan(found[1])
    assert p_values.holm([]).shape == (0,)


def test_holm_keeps_the_chance_of_any_false_alarm():
    rng = np.random.default_rng(0)
    false = [(p_values.holm(rng.random(20)) < 0.05).any() for _ in range(2000)]
    assert np.mean(false) == pytest.approx(0.05, abs=0.015)
    assert np.mean([(rng.random(20) < 0.05).any() for _ in range(2000)]) > 0.5  # uncorrected

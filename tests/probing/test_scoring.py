from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, roc_auc_score

from planted import QUICK, SHARED, balanced, groups_of, layer_domain, sae_domain
from sae_transfer.core.space import sae_features
from sae_transfer.probing import evaluations, residual_probes, scoring
from sae_transfer.probing.evaluations import TransferParams, bootstrapped_auc
from sae_transfer.probing.kinds import fit
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.scoring import cell, describe, evaluated, repeated_cell
from sae_transfer.results.transfer_table import TRANSFER
from sae_transfer.stats import intervals, p_values, roc, thresholds

PARAMS = TransferParams(resamples=200)
WHERE = """model layer space sae train test in_domain train_variation test_variation condition n_test n_overlap
n_groups""".split()
DESIGN = """model layer space sae train test in_domain train_variation test_variation condition probe family rank
n_features feature_ids scaling ranking C n_train n_test n_overlap n_groups auc auc_low auc_high auc_train_sd accuracy
accuracy_low accuracy_high balanced_accuracy f1 brier tpr_at_fpr_1 tpr_at_fpr_5 cv_auc delta_residual delta_residual_low
delta_residual_high delta_residual_p reason""".split()
PROBE = Probe("sparse_n", "sparse_n", np.ones(2), 0.0, np.array([3, 1]), 0.1, cv_auc=0.9, n_train=240)


def made(seed=0, n=80, group_size=2, dataset="b"):
    """Test rows, the scores of a good probe and those of a weaker one."""
    rng = np.random.default_rng(seed)
    labels = balanced(rng, n)
    test = evaluations.evaluation_of(labels, groups_of(n, group_size), dataset, 0, PARAMS)
    return test, labels * 1.5 + rng.normal(size=n), labels * 0.5 + np.round(rng.normal(size=n), 1)


def slow_bootstrap(test, statistic):
    """[R], the statistic on each resample as rows that are really repeated."""
    values = []
    for weights in test.weights:
        rows = np.repeat(np.arange(len(weights)), weights.astype(int))
        values.append(statistic(rows) if len(set(test.labels[rows])) == 2 else np.nan)
    return np.array(values)


# one probe on one dataset


def test_intervals_equal_those_of_a_slow_bootstrap():
    test, good, weak = made()
    found = cell(PROBE, good, test, bootstrapped_auc(weak, test))
    y = test.labels

    def area(rows):
        return roc_auc_score(y[rows], good[rows])

    def weak_area(rows):
        return roc_auc_score(y[rows], weak[rows])

    def accuracy(rows):
        return accuracy_score(y[rows], good[rows] >= 0)

    everything, expected = np.arange(len(y)), {}
    for name, statistic, groups in (
        ("auc", area, test.effective_groups),
        ("weak", weak_area, test.effective_groups),
        ("accuracy", accuracy, test.n_groups),
    ):
        expected[name] = intervals.interval(statistic(everything), slow_bootstrap(test, statistic), groups)
    both = slow_bootstrap(test, area), slow_bootstrap(test, weak_area)
    values = expected["auc"].value, expected["weak"].value
    expected["delta_residual"] = intervals.difference_interval(*values, *both, test.effective_groups)
    for name in ("auc", "accuracy", "delta_residual"):
        of_name = found[name], found[f"{name}_low"], found[f"{name}_high"]
        wanted = expected[name].value, expected[name].low, expected[name].high
        np.testing.assert_allclose(of_name, wanted, atol=1e-12)
    assert found["delta_residual_p"] == pytest.approx(p_values.student_p(expected["delta_residual"]), abs=1e-12)


@pytest.mark.parametrize("step", [0.0, 0.05, 0.1, 0.2, 0.4])
def test_a_difference_is_significant_where_its_interval_leaves_out_zero(step):
    test, good, weak = made()
    found = cell(PROBE, good, test, bootstrapped_auc((1 - step) * good + step * weak, test))
    outside = not found["delta_residual_low"] <= 0 <= found["delta_residual_high"]
    assert (found["delta_residual_p"] < 0.05) == outside


def test_the_difference_is_paired():
    test, good, weak = made()
    twin = cell(PROBE, good, test, bootstrapped_auc(2 * good + 1, test))
    np.testing.assert_allclose(
        [twin["delta_residual"], twin["delta_residual_low"], twin["delta_residual_high"]], 0, atol=1e-6
    )
    near = cell(PROBE, good, test, bootstrapped_auc(good + 0.1 * weak, test))
    assert near["delta_residual_high"] - near["delta_residual_low"] < (near["auc_high"] - near["auc_low"]) / 2


def test_the_residual_probe_has_no_difference_to_itself_but_a_reason():
    test, good, _ = made()
    found = cell(replace(PROBE, kind="residual"), good, test, bootstrapped_auc(good, test))
    assert np.isnan([found["delta_residual"], found["delta_residual_low"], found["delta_residual_high"]]).all()
    assert "delta_residual: the residual probe itself" in found["reason"]


def test_the_sign_is_not_chosen_again():
    test, good, weak = made()
    against = bootstrapped_auc(weak, test)
    turned = cell(PROBE, -good, test, against)
    assert turned["auc"] == pytest.approx(1 - cell(PROBE, good, test, against)["auc"])
    assert turned["auc"] < 0.3


def test_thresholds_use_the_probes_probabilities():
    test, good, weak = made()
    probe = replace(PROBE, platt_slope=3.0, platt_bias=-2.0)
    found = cell(probe, good, test, bootstrapped_auc(weak, test))
    p = 1 / (1 + np.exp(2.0 - 3.0 * good))
    assert found["accuracy"] == accuracy_score(test.labels, p >= 0.5)
    for name, value in thresholds.threshold_metrics(p, test.labels).items():
        assert found[name] == pytest.approx(value)
    many = evaluations.evaluation_of(np.tile(test.labels, 3), groups_of(240, 2), "b", 0, PARAMS)
    scores = np.tile(good, 3)
    found = cell(probe, scores, many, bootstrapped_auc(scores, many))
    assert found["tpr_at_fpr_5"] == roc.detection_rate(scores, many.labels, 0.05)
    assert np.isnan(found["tpr_at_fpr_1"])  # 1% of 120 rows cannot be told
    assert "tpr_at_fpr_1: 120 answerable rows, fewer than 500" in found["reason"]
    assert "tpr_at_fpr_5" not in found["reason"]


@pytest.mark.parametrize("kind", ["sparse_1", "residual", "mean_difference"])
@pytest.mark.parametrize("case", ["plain", "few groups", "one class", "no cv_auc"])
def test_whatever_is_missing_has_a_reason(kind, case):
    test, good, weak = made(group_size=10 if case == "few groups" else 2)
    if case == "one class":
        test = replace(test, labels=np.ones_like(test.labels))
    cv_auc = np.nan if case == "no cv_auc" else 0.9
    found = cell(replace(PROBE, kind=kind, cv_auc=cv_auc), good, test, bootstrapped_auc(weak, test))
    missing = [
        name for name in ("auc", "auc_train_sd", "accuracy", "cv_auc", "delta_residual") if np.isnan(found[name])
    ]
    missing += [name for name in ("auc", "accuracy") if np.isnan(found[f"{name}_low"])]
    for name in missing:
        assert f"{name}: " in found["reason"]
    assert ("groups, fewer than 10" in found["reason"]) == (case == "few groups")


# bootstrap weights


def test_every_probe_meets_the_same_resamples():
    labels, groups = np.tile([0, 1], 40), groups_of(80, 2)
    one, again = (evaluations.evaluation_of(labels, groups, "b", 0, PARAMS).weights for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert one.shape == (200, 80)
    assert (one != evaluations.evaluation_of(labels, groups, "c", 0, PARAMS).weights).any()
    assert (one != evaluations.evaluation_of(labels, groups, "b", 1, PARAMS).weights).any()


def test_test_rows_are_resampled_by_group():
    test = made(group_size=4)[0]
    assert test.n_groups == 20
    np.testing.assert_array_equal(test.weights[:, ::4], test.weights[:, 3::4])
    np.testing.assert_array_equal(test.weights[:, ::4].sum(axis=1), 20)


def test_intervals_by_group_are_wider_where_rows_of_a_group_agree():
    rng = np.random.default_rng(0)
    labels = np.repeat(balanced(rng, 40), 4)
    scores = labels + np.repeat(rng.normal(size=40), 4)
    by_group = evaluations.evaluation_of(labels, groups_of(160, 4), "b", 0, PARAMS)
    by_row = evaluations.evaluation_of(labels, groups_of(160, 1), "b", 0, PARAMS)
    wide, narrow = (cell(PROBE, scores, test, bootstrapped_auc(scores, test)) for test in (by_group, by_row))
    assert wide["auc_high"] - wide["auc_low"] > 1.5 * (narrow["auc_high"] - narrow["auc_low"])


def test_the_interval_covers_the_true_area_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    labels, groups, true = np.tile([0, 1], 50), groups_of(100), stats.norm.cdf(1 / np.sqrt(2))
    test, hits = evaluations.evaluation_of(labels, groups, "b", 0, PARAMS), 0
    for _ in range(300):
        found = cell(PROBE, labels + rng.normal(size=100), test, bootstrapped_auc(labels, test))
        hits += found["auc_low"] <= true <= found["auc_high"]
    assert 0.92 < hits / 300 < 0.99


# repeats of a control


def test_repeats_are_averaged_with_students_interval():
    test, good, weak = made()
    rng = np.random.default_rng(0)
    scores = [good + rng.normal(size=len(good)) for _ in range(5)]
    against = bootstrapped_auc(weak, test)
    control = replace(PROBE, kind="shuffled_labels", cv_auc=np.nan)
    found = repeated_cell([control] * 5, scores, test, against)
    singles = [cell(control, each, test, against) for each in scores]
    for name in ("auc", "accuracy", "delta_residual"):
        values = [single[name] for single in singles]
        low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
        expected = (np.mean(values), low, high)
        assert (found[name], found[f"{name}_low"], found[f"{name}_high"]) == pytest.approx(expected)
    for name in ("balanced_accuracy", "f1", "brier", "tpr_at_fpr_1", "tpr_at_fpr_5"):
        assert found[name] == pytest.approx(np.mean([single[name] for single in singles]), nan_ok=True)
    assert found["auc_train_sd"] == pytest.approx(np.std([single["auc"] for single in singles], ddof=1))
    expected = stats.ttest_1samp([single["delta_residual"] for single in singles], 0).pvalue
    assert found["delta_residual_p"] == pytest.approx(expected)
    assert found["reason"].startswith("cv_auc: a control with labels of its own; tpr_at_fpr_1: 40 answerable rows")
    assert set(found) == set(singles[0])


# the table


def test_every_column_is_filled():
    test, good, weak = made()
    (row,) = evaluated([PROBE], {"space": np.c_[good, good, good, good]}, test, bootstrapped_auc(weak, test))
    filled = [*WHERE, *row]
    assert sorted(filled) == sorted(TRANSFER.names)
    assert set(DESIGN) <= set(TRANSFER.names)


def test_a_row_says_which_probe_it_is_about():
    found = describe(PROBE)
    assert found["feature_ids"] == "3 1"
    assert (found["n_features"], found["n_train"], found["C"], found["probe"]) == (2, 240, 0.1, "sparse_n")
    dense = describe(Probe("residual", "residual", np.ones(128), 0.0))
    assert (dense["feature_ids"], dense["n_features"]) == ("", 0)


# from A to B


def test_a_probe_without_a_layer_has_no_difference_but_a_reason():
    test, good, _ = made()
    found = cell(replace(PROBE, kind="text", family="tfidf"), good, test, None)
    assert found["auc_low"] < found["auc"] < found["auc_high"]
    assert np.isnan([found["delta_residual"], found["delta_residual_low"], found["delta_residual_high"]]).all()
    assert "delta_residual: a space without a layer; layer: a space without a layer" in found["reason"]


# the ceiling


def of_sizes(*sizes):
    kinds = [("residual", True), ("mean_difference", True), ("sparse_n", False), ("sparse_n", True)]
    return {n: [replace(PROBE, kind=kind, selected=selected, n_train=n) for kind, selected in kinds] for n in sizes}


@pytest.mark.parametrize(
    ("b", "n_train", "sizes", "expected"),
    [
        ((240,), 240, [240], 240),
        ((2000, 240), 2000, [240, 2000], 2000),
        ((2000, 240), 242, [242], 240),  # the largest below
        ((300, 240), 2000, [240, 2000], 300),
        ((2000, 240), 242, [240, 242], None),  # 240 of A has them already
        ((240,), 100, [100], 240),  # B has none as small
    ],
)
def test_the_ceiling_is_bs_own_probes_on_about_as_many_rows(b, n_train, sizes, expected):
    found = scoring.target_trained(of_sizes(*b), n_train, sizes)
    assert [probe.n_train for probe in found] == ([] if expected is None else [expected] * 2)
    assert {probe.kind for probe in found} <= {"target_trained"}
    assert all(describe(probe)["uses_target"] for probe in found)
    assert not describe(PROBE)["uses_target"]


def test_test_labels_change_nothing_that_was_selected():
    fitted = fit(sae_features("s", 2), sae_domain(0, planted={SHARED: (0.1, 0.8)}), 0, QUICK)
    elsewhere = sae_domain(1, planted={SHARED: (0.1, 0.8)})
    rows = []
    for labels in (elsewhere.labels, np.random.default_rng(0).permutation(elsewhere.labels)):
        test = evaluations.evaluation_of(labels, elsewhere.groups, "b", 0, PARAMS)
        against = bootstrapped_auc(fitted[-1].score(elsewhere.X), test)
        rows.append([describe(p) | cell(p, p.score(elsewhere.X), test, against) for p in fitted])
    for before, after in zip(*rows, strict=True):
        for name in (*describe(PROBE), "cv_auc"):
            np.testing.assert_equal(after[name], before[name])
    assert rows[0][0]["auc"] > 0.75
    assert abs(rows[1][0]["auc"] - 0.5) < 0.13  # 3.5 sd: the labels were all that linked the scores to the truth


def test_shuffled_labels_interval_holds_one_half_in_and_out_of_domain():
    direction = np.full(64, 0.4)
    train = layer_domain(0, d=64, direction=direction)
    fitted = residual_probes.shuffled_residual(train, 0, QUICK.model_copy(update={"repeats": 20}), 0.01)
    for seed in (1, 2):
        rows = layer_domain(seed, d=64, direction=direction)
        test = evaluations.evaluation_of(rows.labels, rows.groups, "b", 0, PARAMS)
        against = bootstrapped_auc(rows.labels * 1.0, test)
        found = repeated_cell(fitted, [probe.score(rows.X) for probe in fitted], test, against)
        assert found["auc_low"] < 0.5 < found["auc_high"]
        assert found["delta_residual_high"] < 0

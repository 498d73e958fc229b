from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from domains import COMMON, XOR, again, domain, relabelled, world
from planted import SHARED, SPURIOUS
from sae_transfer.analyses.oracle_gap import TABLE, oracle_gaps, verdicts

GOOD = 0.8


@pytest.fixture(scope="module")
def domains():
    return [*world(names="abc"), domain("x", 30, {}, xor=True)]


@pytest.fixture(scope="module")
def gaps(domains):
    return oracle_gaps(domains, GOOD)


def row(gaps, train, test, probe="sparse_1", oracle="trained_on_target"):
    found = gaps[(gaps.train == train) & (gaps.test == test) & (gaps.probe == probe) & (gaps.oracle == oracle)]
    assert len(found) == 1
    return found.iloc[0]


def test_a_shared_feature_that_a_spurious_one_outranks_is_named_as_missed(gaps):
    for oracle in ("trained_on_target", "refitted_on_source", "best_of_source"):
        missed = row(gaps, "a", "b", oracle=oracle)
        assert (missed.feature_ids, missed.oracle_feature_ids) == (str(SPURIOUS), str(SHARED))
        assert missed.oracle_rank == 2
        assert missed.verdict == "missed"
        assert missed.gap_low > 0.25
        assert missed.p_holm < 0.05


def test_a_shared_feature_that_the_procedure_chooses_is_named_as_found(gaps):
    found = row(gaps, "b", "c")
    assert found.feature_ids == found.oracle_feature_ids == str(SHARED)
    assert (found.oracle_rank, found.gap, found.verdict) == (1, 0, "found")
    assert found.p == 1


def test_where_only_an_xor_of_two_features_tells_no_good_feature_exists(domains, gaps):
    x = domains[-1]
    fires = (x.train.X[:, list(XOR)].toarray() > 0).astype(int)
    np.testing.assert_array_equal(fires.sum(axis=1) % 2, x.train.labels)  # together they tell everything
    for probe in ("sparse_1", "sparse_n"):
        for oracle in ("trained_on_target", "refitted_on_source"):
            assert row(gaps, "b", "x", probe, oracle).verdict == "no_good_feature"


def test_numbers_are_those_of_the_probes_on_the_test_rows(domains, gaps):
    a, b = domains[:2]
    found = row(gaps, "a", "b")
    areas = [roc_auc_score(b.test.labels, p.score(b.unseen)) for p in (b.sparse_1, a.sparse_1)]
    assert found.gap == pytest.approx(areas[0] - areas[1])
    assert (found.oracle_auc, found.auc) == pytest.approx(tuple(areas))
    assert found.gap_low < found.gap < found.gap_high


def test_the_sign_of_the_source_is_kept():
    turned = COMMON | {3: (0.9, 0.02)}
    domains = [domain("p", 1, COMMON | {3: (0.05, 0.6)}), domain("q", 2, turned)]
    gaps = oracle_gaps(domains, GOOD)
    assert row(gaps, "p", "q").oracle_feature_ids == "3"
    assert row(gaps, "p", "q").oracle_auc > 0.9
    assert row(gaps, "p", "q", oracle="refitted_on_source").oracle_auc < 0.1
    assert row(gaps, "p", "q", oracle="best_of_source").oracle_feature_ids == str(SHARED)


def test_a_feature_that_fires_for_unanswerable_questions_is_as_good_as_its_mirror():
    planted = {3: (0.95, 0.02), SHARED: (0.2, 0.7)}
    gaps = oracle_gaps([domain("p", 1, planted | {SPURIOUS: (0.0, 1.0)}), domain("q", 2, planted)], GOOD)
    for oracle in ("trained_on_target", "refitted_on_source", "best_of_source"):
        found = row(gaps, "p", "q", oracle=oracle)
        assert found.oracle_feature_ids == "3"
        assert found.oracle_auc > 0.9


def test_test_labels_decide_nothing_that_is_selected(domains, gaps):
    permuted = oracle_gaps([domains[0], relabelled(domains[1], "test"), *domains[2:]], GOOD)
    chosen = ["feature_ids", "oracle_feature_ids", "oracle_rank"]
    assert permuted[chosen].equals(gaps[chosen])
    assert not permuted["auc"].equals(gaps["auc"])


# bad input


def test_an_oracle_feature_that_is_silent_on_the_source_has_no_rank_and_nothing_to_fit():
    only_b = {11: (0.0, 0.99), SHARED: (0.1, 0.6)}
    a, b = domain("a", 1, COMMON | {11: (0.0, 0.0)}), domain("b", 2, only_b)
    gaps = oracle_gaps([a, b], GOOD)
    there = row(gaps, "a", "b")
    assert (there.oracle_feature_ids, there.oracle_unranked) == ("11", 1)
    assert np.isnan(there.oracle_rank)
    assert "fires on 0 of 200 training rows of a" in there.reason
    refit = row(gaps, "a", "b", oracle="refitted_on_source")
    assert np.isnan([refit.oracle_auc, refit.gap, refit.p]).all()
    assert "nothing to fit on a" in refit.reason
    assert refit.verdict == ""


def test_a_standard_feature_that_is_silent_on_b_says_so():
    a, b = domain("a", 1, {11: (0.0, 0.99)}), domain("b", 2, COMMON | {11: (0.0, 0.0)})
    found = row(oracle_gaps([a, b], GOOD), "a", "b")
    assert found.auc == 0.5
    assert "silent on b" in found.reason


def test_the_same_rows_under_two_names_have_no_gap_but_a_reason(domains):
    b, twin = again(domains[1])
    gaps = oracle_gaps([domains[0], b, twin], GOOD)
    same = row(gaps, "b", "b again")
    assert np.isnan([same.gap, same.auc, same.p_holm]).all()
    assert same.reason == "gap: b and b again hold the same rows"
    assert set(gaps.n_domains) == {2}
    assert np.isfinite(row(gaps, "a", "b again").gap)


def test_one_class_among_the_test_rows_is_a_reason(domains):
    a, b = domains[:2]
    one = replace(b, test=replace(b.test, labels=np.ones_like(b.test.labels)))
    found = row(oracle_gaps([a, one], GOOD), "a", "b")
    assert np.isnan([found.auc, found.gap, found.p]).all()
    assert "one class" in found.reason
    assert found.verdict == ""


def test_few_groups_give_no_interval_no_p_and_no_verdict(domains):
    a, b = domains[:2]
    few = replace(b, test=replace(b.test, groups=np.repeat([f"g{i}" for i in range(8)], 20)))
    found = row(oracle_gaps([a, few], GOOD), "a", "b")
    assert np.isfinite(found.gap)
    assert np.isnan([found.gap_low, found.p, found.p_holm]).all()
    assert "8 groups" in found.reason
    assert found.verdict == ""


def test_a_single_domain_has_no_gaps(domains):
    gaps = oracle_gaps(domains[:1], GOOD)
    assert gaps.empty
    assert list(gaps.columns) == TABLE.names


def test_few_resamples_do_not_keep_what_surely_differs_from_passing_the_correction():
    gaps = oracle_gaps(world(names="abcd", resamples=100), GOOD)
    assert row(gaps, "a", "b").verdict == "missed"
    assert (gaps.p[gaps.verdict == "missed"] < 2 / 101).all()  # where a bootstrap's p ends


def test_p_values_and_intervals_say_the_same(gaps):
    known = gaps[gaps.p.notna()]
    assert ((known.p < 0.05) == ((known.gap_low > 0) | (known.gap_high < 0))).all()


def test_verdicts_need_intervals_on_the_right_side():
    sure = {"auc_low": 0.5, "auc_high": 0.7, "oracle_auc_low": 0.85, "oracle_auc_high": 0.9, "p_holm": 0.01}
    cases = {
        "missed": [{}],
        "open": [{"p_holm": 0.06}, {"auc_high": 0.82}, {"oracle_auc_low": 0.78}],
        "no_good_feature": [{"oracle_auc_low": 0.7, "oracle_auc_high": 0.79}],
        "found": [{"auc_low": 0.81, "auc_high": 0.9}],
        "": [{"auc_low": np.nan}, {"oracle_auc_low": np.nan}],
    }
    for verdict, changes in cases.items():
        assert set(verdicts(pd.DataFrame([sure | change for change in changes]), GOOD)) == {verdict}

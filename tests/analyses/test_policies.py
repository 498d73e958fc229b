from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from domains import FEW, PLANTED, again, domain, relabelled, resamples, table, world
from planted import SHARED, SPURIOUS
from sae_transfer.analyses.candidate_statistics import few_labels
from sae_transfer.analyses.policies import TABLE, Knowledge, mean_regret, policies, section
from sae_transfer.probing import sae_probes

INFORMED = ("worst_case", "agreement", "predictor", "few_64", "best_of_source")
BLIND = ("in_domain", "stability", "worst_case", "agreement", "predictor")  # what sees no label of B


def knowledge(domains, best):
    few = {each.name: few_labels(each, FEW, 0) for each in domains}
    return Knowledge(best, table(domains, best, whole_probes=False), few)


@pytest.fixture(scope="module")
def domains():
    return world(names="abcd")


@pytest.fixture(scope="module")
def best(domains):
    return resamples(domains, 5)


@pytest.fixture(scope="module")
def known(domains, best):
    return knowledge(domains, best)


@pytest.fixture(scope="module")
def found(domains, known):
    return policies(domains, known)


def row(found, train, test, policy, probe="sparse_1"):
    rows = found[(found.train == train) & (found.test == test) & (found.policy == policy) & (found.probe == probe)]
    assert len(rows) == 1
    return rows.iloc[0]


# planted truth


def test_in_domain_and_stability_choose_the_spurious_feature_and_pay_for_it(found):
    for policy in ("in_domain", "stability"):
        chosen = row(found, "a", "b", policy)
        assert chosen.feature_ids == str(SPURIOUS)
        assert chosen.regret_low > 0.25


@pytest.mark.parametrize("policy", INFORMED)
def test_what_looks_beyond_a_chooses_the_shared_feature(found, policy):
    chosen = row(found, "a", "b", policy)
    assert chosen.regret == pytest.approx(0, abs=0.05 if policy.startswith("few") else 0)
    assert chosen.gain_low > 0.2
    assert chosen.p_holm < 0.05
    if not policy.startswith("few"):
        assert chosen.feature_ids == str(SHARED)


def test_more_labels_of_b_lose_less(found):
    regret = [row(found, "a", "b", policy).regret for policy in ("few_16", "few_64", "best_of_source")]
    assert regret[0] >= regret[1] >= regret[2]


def test_an_xor_leaves_nothing_to_choose(best, domains):
    among = [*domains[1:], domain("x", 30, {}, xor=True)]
    found = policies(among, knowledge(among, resamples(among, 2)))
    to_x = found[found.test == "x"]
    assert to_x["auc_low"].max() < 0.6
    assert to_x["auc"].between(0.35, 0.65).all()


def test_on_noise_no_policy_gains():
    among = [domain(name, i, {}) for i, name in enumerate("abc")]
    found = policies(among, knowledge(among, resamples(among, 2)))
    free = found[~found.policy.isin(["oracle", "best_of_source"])]
    assert free["gain"].abs().mean() < 0.06
    assert mean_regret(found)["better"].sum() <= 1


# the numbers


def test_numbers_are_those_of_the_chosen_features_fitted_on_a(domains, found):
    a, b = domains[:2]
    chosen = row(found, "a", "b", "worst_case", "sparse_n")
    ids = np.array(chosen.feature_ids.split(), dtype=int)
    assert len(ids) == len(a.sparse_n.weights) == chosen.n_features
    probe = sae_probes.sparse_n(a.train, ids, a.sparse_n.C, selected=False)
    area = roc_auc_score(b.test.labels, probe.score(b.unseen))
    oracle = roc_auc_score(b.test.labels, b.sparse_n.score(b.unseen))
    standard = roc_auc_score(b.test.labels, a.sparse_n.score(b.unseen))
    assert (chosen.auc, chosen.regret, chosen.gain) == pytest.approx((area, oracle - area, area - standard))


def test_few_labels_are_averaged_over_draws(domains, known, found):
    a, b = domains[:2]
    drawn = []
    for rows in known.few["b"][16]:
        areas = [probe.score(b.train.X[rows]) for probe in sae_probes.sparse_1(a.train, a.ranking.feature_ids)]
        areas = [round(roc_auc_score(b.train.labels[rows], score), 12) for score in areas]
        probe = sae_probes.sparse_1(a.train, a.ranking.feature_ids[[int(np.argmax(areas))]])[0]
        drawn.append(roc_auc_score(b.test.labels, probe.score(b.unseen)))
    chosen = row(found, "a", "b", "few_16")
    assert chosen.n_draws == FEW.draws
    assert (chosen.auc, chosen.auc_draw_sd) == pytest.approx((np.mean(drawn), np.std(drawn, ddof=1)))


def test_every_interval_holds_its_number_and_every_gap_has_a_reason(found):
    assert list(found.columns) == TABLE.names
    for name in ("auc", "regret", "gain"):
        there = found[found[name].notna()]
        assert (there[f"{name}_low"] <= there[name] + 1e-9).all()
        assert (there[name] <= there[f"{name}_high"] + 1e-9).all()
    assert found.loc[found["regret"].isna(), "reason"].str.contains("the oracle itself").all()
    assert found.loc[found["gain"].isna(), "reason"].str.contains("what the others are set against").all()
    assert set(found.n_domains) == {4}


def test_the_mean_regret_is_over_pairs_and_says_how_many(found):
    means = mean_regret(found).set_index(["probe", "policy"])
    own = found[(found.probe == "sparse_1") & (found.policy == "worst_case")]
    mean = means.loc[("sparse_1", "worst_case")]
    assert (mean.regret, mean.regret_high) == pytest.approx((own["regret"].mean(), own["regret"].max()))
    assert (mean.n_pairs, mean.n_domains) == (12, 4)
    assert mean.better == ((own["p_holm"] < 0.05) & (own["gain"] > 0)).sum() >= 3


# what may not be seen


def test_test_labels_choose_nothing(domains, best, found):
    permuted = [relabelled(each, "test") for each in domains]
    few = {each.name: few_labels(each, FEW, 0) for each in domains}
    candidates = table(permuted, best, whole_probes=False)
    other = policies(permuted, Knowledge(best, candidates, few))
    assert other["feature_ids"].equals(found["feature_ids"])
    assert not other["auc"].equals(found["auc"])


def test_the_predictor_for_b_sees_no_test_label_of_b(domains, best, found):
    permuted = [domains[0], relabelled(domains[1], "test"), *domains[2:]]
    other = policies(permuted, knowledge(permuted, best))
    for_b = (found["policy"] == "predictor") & (found["test"] == "b")
    assert other.loc[for_b, "feature_ids"].equals(found.loc[for_b, "feature_ids"])


def test_policies_marked_as_free_of_labels_see_none_of_b(domains, best, found):
    permuted = [domains[0], relabelled(domains[1], "train"), *domains[2:]]
    other = policies(permuted, knowledge(permuted, best))
    from_a = (found["train"] == "a") & (found["test"] == "b")
    same = found.loc[from_a, "feature_ids"] == other.loc[from_a, "feature_ids"]
    sees = found.loc[from_a, "target_access"]
    assert same[sees != "labels"].all()
    assert set(found.loc[from_a & found["policy"].isin(BLIND), "target_access"]) == {"no", "rows"}
    assert not same[found["policy"] == "oracle"].all()


# bad input


def test_two_domains_have_no_other_source_and_no_prediction(domains, best):
    found = policies(domains[:2], knowledge(domains[:2], best))
    for policy in ("worst_case", "predictor"):
        none = row(found, "a", "b", policy)
        assert np.isnan([none.auc, none.regret]).all()
        assert "nothing to choose by" in none.reason
    assert np.isfinite(row(found, "a", "b", "few_16").auc)


def test_fewer_rows_than_labels_are_a_reason(domains, best):
    among = [replace(each, train=each.train.take(np.arange(40))) for each in domains[:3]]
    found = policies(among, knowledge(among, best))
    assert np.isfinite(row(found, "a", "b", "few_16").auc)
    none = row(found, "a", "b", "few_64")
    assert np.isnan(none.auc)
    assert "needs as many training rows of B" in none.reason


def test_without_resamples_stability_is_missing(domains, known):
    nothing = replace(known, best=known.best | {"a": []})
    assert "nothing to choose by" in row(policies(domains, nothing), "a", "b", "stability").reason


def test_the_same_rows_under_two_names(domains, best):
    a, b, c, _ = domains
    only = policies([a, b, c], knowledge([a, b, c], best))
    b, twin = again(b)
    among = [a, b, twin, c]
    found = policies(among, knowledge(among, best | {twin.name: best["b"]}))
    same = found[(found.train == "b") & (found.test == "b again")]
    assert same["auc"].isna().all()
    assert (same["reason"] == "auc: b and b again hold the same rows").all()
    assert set(found["n_domains"]) == {3}
    worst = [row(t, "a", "b", "worst_case") for t in (found, only)]
    assert worst[0].feature_ids == worst[1].feature_ids  # B's twin is no source


def test_features_that_are_silent_on_b_tie_and_say_so(best):
    a = domain("a", 1, {11: (0.0, 0.99)})
    b, c = (domain(n, i, PLANTED["b"] | {11: (0.0, 0.0)}) for i, n in enumerate("bc"))
    chosen = row(policies([a, b, c], knowledge([a, b, c], resamples([a, b, c], 1))), "a", "b", "in_domain")
    assert chosen.auc == 0.5
    assert chosen.auc_low < 0.5 < chosen.auc_high
    assert "silent on b" in chosen.reason


def test_one_class_among_test_rows_is_a_reason(domains, best):
    one = replace(domains[1], test=replace(domains[1].test, labels=np.ones_like(domains[1].test.labels)))
    among = [domains[0], one, domains[2]]
    found = row(policies(among, knowledge(among, best)), "a", "b", "worst_case")
    assert np.isnan([found.auc, found.regret, found.p]).all()
    assert "one class" in found.reason


def test_a_single_domain_has_no_rows(domains, best):
    found = policies(domains[:1], Knowledge(best, pd.DataFrame(), {}))
    assert found.empty
    assert list(found.columns) == TABLE.names
    assert mean_regret(found).empty


def test_few_resamples_do_not_keep_what_surely_gains_from_passing_the_correction(best):
    among = world(names="abcd", resamples=60)
    found = policies(among, knowledge(among, best))
    means = mean_regret(found).set_index(["probe", "policy"])
    assert means.loc[("sparse_1", "worst_case"), "better"] >= 3  # from a to each of the others


def test_the_report_counts_as_the_means_do(found):
    tables = {"policies": found.assign(sae="narrow")}
    chosen = mean_regret(found[found["policy"] != "oracle"])
    told = section(tables)
    for probe, shown in zip(("sparse_1", "sparse_n"), told.tables, strict=False):
        means = chosen[chosen["probe"] == probe]
        headings = [heading.text for heading in shown.headings]
        for name, heading in (("better", "better than the paper's"), ("worse", "worse"), ("n_pairs", "pairs")):
            assert [row[headings.index(heading)].sort for row in shown.rows] == means[name].tolist()
    means = chosen[chosen["probe"] == "sparse_1"].set_index("policy")["regret"]
    best = means[["stability", "worst_case", "agreement", "predictor"]].min()
    assert f"loses {best:.2f} of AUC against B's own choice" in told.claim
    assert f"the paper's choice loses {means['in_domain']:.2f}." in told.claim
    assert told.tables[0].rows[0][0].text == "best on A (the paper's choice)"

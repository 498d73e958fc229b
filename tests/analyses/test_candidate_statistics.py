"""Candidates and what is known of them."""

from dataclasses import replace

import numpy as np
import pytest

from domains import DECODER, DENSE, DIRECTIONS, PLANTED, D, again, domain, relabelled, resamples, stream, table, world
from planted import SHARED, SPURIOUS, groups_of, layer_domain
from sae_transfer.analyses import candidates
from sae_transfer.analyses.candidate_statistics import (
    FEW,
    HELD,
    LABEL_FREE,
    TARGET_ACCESS,
    few_labels,
    separability,
    starting,
    with_consensus,
)
from sae_transfer.analyses.candidates import RANDOM, TOP, choose
from sae_transfer.analyses.domains import distinct, others
from sae_transfer.analyses.generalization import GeneralizationParams
from sae_transfer.artifacts.features import Directions
from sae_transfer.probing.rows import Rows
from sae_transfer.probing.search import Ranking
from sae_transfer.stats import roc


@pytest.fixture(scope="module")
def domains():
    return world(resamples=20)


@pytest.fixture(scope="module")
def best(domains):
    return resamples(domains)


@pytest.fixture(scope="module")
def known(domains, best):
    return table(domains, best)


def row(known, train, test, candidate):
    found = known[(known.train == train) & (known.test == test) & (known.candidate == str(candidate))]
    assert len(found) == 1
    return found.iloc[0]


# planted truth


def test_the_statistics_name_each_planted_feature_for_what_it_is(known):
    shared, spurious, dense = (row(known, "a", "b", feature) for feature in (SHARED, SPURIOUS, DENSE))
    assert spurious.cv_auc > shared.cv_auc > 0.85  # in domain the spurious one is the better one
    assert spurious.auc < 0.6 < 0.85 < shared.auc
    assert spurious.consensus_mean < 0.6 < 0.85 < shared.consensus_min
    assert spurious.agreement_sources < 0.3 < 0.5 < shared.agreement_sources
    assert spurious.agreement_target < 0.3 < 0.5 < shared.agreement_target
    features = known[(known.train == "a") & (known.test == "b") & (known.origin == "top")]
    for sign in ("density_shift", "ks"):
        assert features.loc[features[sign].idxmax(), "candidate"] == str(DENSE)
    assert dense.density_shift == pytest.approx(0.6, abs=0.12)
    for n in (16, 64):
        drawn = [f"{FEW}{n}.{draw}" for draw in range(4)]
        assert shared[drawn].mean() > spurious[drawn].mean() + 0.2


def test_the_bound_knows_the_shared_feature_by_its_direction(known):
    shared, spurious = (row(known, "a", "b", feature) for feature in (SHARED, SPURIOUS))
    assert shared.mahalanobis_target > spurious.mahalanobis_target + 0.2
    assert shared.decoder_cosine == pytest.approx(row(known, "a", "c", SHARED).decoder_cosine)  # A alone decides it


def test_statistics_equal_their_definitions(domains, known, best):
    a, b, c, d = domains
    found, f = row(known, "a", "b", SHARED), SHARED
    values_a, values_b = (each.train.X[:, [f]].toarray()[:, 0] for each in (a, b))
    assert found.auc == pytest.approx(roc.auc(b.unseen[:, [f]].toarray()[:, 0], b.test.labels))
    areas = [roc.auc(each.train.X[:, [f]].toarray()[:, 0], each.train.labels) for each in (c, d)]
    assert (found.consensus_mean, found.consensus_min) == pytest.approx((np.mean(areas), min(areas)))
    assert (found.density_train, found.density_test) == pytest.approx(((values_a > 0).mean(), (values_b > 0).mean()))
    streams = {each.name: stream(each) for each in domains}
    scores = [streams[each.name].residual.score(streams["b"].train.X) for each in (a, c, d)]
    corr = [np.corrcoef(values_b, score)[0, 1] for score in scores]
    assert (found.agreement, found.agreement_sources) == pytest.approx((corr[0], np.mean(corr)))
    weights = streams["a"].residual.weights
    cosine = DECODER[f] @ weights / np.linalg.norm(DECODER[f]) / np.linalg.norm(weights)
    assert found.decoder_cosine == pytest.approx(cosine)
    assert found.selection_frequency == pytest.approx(np.mean([f in ids[:3] for ids in best["a"]]))


def test_a_probe_is_a_candidate_whose_numbers_are_its_scores(domains, known):
    a, b = domains[:2]
    for kind, probe in (("sparse_1", a.sparse_1), ("sparse_n", a.sparse_n)):
        assert row(known, "a", "b", kind).auc == pytest.approx(roc.auc(probe.score(b.unseen), b.test.labels))
    streams = {each.name: stream(each) for each in domains}
    found = row(known, "a", "b", "residual")
    assert found.auc == pytest.approx(roc.auc(streams["a"].residual.score(streams["b"].unseen), b.test.labels))
    assert (found.decoder_cosine, found.agreement) == pytest.approx((1.0, 1.0))
    # the Mahalanobis cosine of two linear probes is the correlation of their scores
    assert found.mahalanobis_target == pytest.approx(found.agreement_target)
    assert np.isnan(found.density_test)
    assert "a probe has none" in found.reason


# what may not be seen


def test_no_statistic_sees_a_test_row(domains, known, best):
    names = [*TARGET_ACCESS, *starting(known, FEW)]
    again = table([relabelled(each, "test") for each in domains], best)
    assert again[names].equals(known[names])
    assert not again["auc"].equals(known["auc"])


def test_label_free_statistics_do_not_see_the_labels_of_b(domains, known, best):
    a, b, *rest = domains
    again = table([a, relabelled(b, "train"), *rest], best)
    for_b = [t[t.test == "b"].reset_index(drop=True) for t in (known, again)]
    assert for_b[0][LABEL_FREE].equals(for_b[1][LABEL_FREE])
    assert not for_b[0]["mahalanobis_target"].equals(for_b[1]["mahalanobis_target"])
    assert not for_b[0][f"{FEW}64.0"].equals(for_b[1][f"{FEW}64.0"])


def test_what_is_left_out_gives_no_consensus(known):
    c_only = with_consensus(known, {"d"})
    here = (known.train == "a") & (known.test == "b")
    assert c_only.loc[here, "consensus_mean"].equals(known.loc[here, f"{HELD}c"].rename("consensus_mean"))
    none = with_consensus(known, {"c", "d"})
    assert none.loc[here, "consensus_mean"].isna().all()


# candidates


def test_random_candidates_fire_as_often_as_the_top():
    rng = np.random.default_rng(0)
    density = np.r_[rng.uniform(0.3, 0.5, TOP), rng.uniform(0.02, 0.9, 5000)]
    ranking = Ranking(np.arange(len(density)), density, density, density)
    places, origin = choose(ranking, rng)
    assert (places[:TOP] == np.arange(TOP)).all()
    assert len(places) == len(set(places)) == TOP + RANDOM
    picked = density[places[origin == "random"]]
    quantiles = np.linspace(0.1, 0.9, 5)
    np.testing.assert_allclose(np.quantile(picked, quantiles), np.quantile(density[:TOP], quantiles), atol=0.03)


def test_where_few_features_are_left_all_are_candidates():
    density = np.linspace(0.9, 0.1, TOP + 30)
    places, origin = choose(Ranking(np.arange(len(density)), density, density, density), np.random.default_rng(0))
    assert list(places) == list(range(TOP + 30))
    assert (origin == "random").sum() == 30


def test_few_labels_are_balanced_differ_by_draw_and_are_the_training_rows(domains):
    few = few_labels(domains[1], GeneralizationParams(few_labels=(16, 10_000), draws=3), 0)
    assert few[10_000].shape == (0, 10_000)  # there are not that many rows
    assert few[16].shape == (3, 16)
    for drawn in few[16]:
        assert len(set(drawn)) == 16
        assert domains[1].train.labels[drawn].sum() == 8
    assert len({tuple(drawn) for drawn in few[16]}) == 3


# bad input


def test_a_feature_that_never_fires_on_b_is_missing_with_a_reason(best):
    a = domain("a", 1, PLANTED["a"] | {11: (0.0, 0.9)}, resamples=20)
    b, c = (domain(n, i, PLANTED["b"] | {11: (0.0, 0.0)}, resamples=20) for i, n in enumerate("bc"))
    silent = row(table([a, b, c], resamples([a, b, c], 2)), "a", "b", 11)
    assert np.isnan([silent.agreement, silent.agreement_sources, silent.agreement_target]).all()
    assert (silent.auc, silent.density_test) == (0.5, 0)
    assert "silent or constant on B" in silent.reason


def test_a_feature_without_a_direction_is_missing_with_a_reason(domains, best):
    one = Directions(np.array([1]), DECODER[[1]], DECODER[[1]], "batchtopk")
    single = candidates.features(domains[0], domains, one, {}, np.random.default_rng(0))
    there = single.name == "1"
    assert np.isfinite(single.direction[there]).all()
    assert np.isnan(single.direction[~there]).all()
    assert np.isnan(single.frequency).all()


def test_one_class_among_test_rows_is_missing_with_a_reason(domains, best):
    a, b = domains[:2]
    b = replace(b, test=replace(b.test, labels=np.zeros_like(b.test.labels)))
    found = table([a, b], best)
    of_b = found[found.test == "b"]
    assert of_b["auc"].isna().all()
    assert of_b["reason"].str.contains("auc: one class").all()
    assert of_b["reason"].str.contains("no labelled source beside A and B").all()


def test_constant_activations_have_no_similarity_and_no_separability(domains, best):
    streams = {each.name: stream(each) for each in domains[:2]}
    still = {
        name: replace(each, train=replace(each.train, X=np.ones_like(each.train.X))) for name, each in streams.items()
    }
    found = table(domains[:2], best, still, whole_probes=False)
    assert found[["mahalanobis_test", "mahalanobis_target", "agreement", "agreement_sources"]].isna().all().all()
    assert (found["separability"] == 0.5).all()


def test_the_same_rows_under_two_names_are_one_domain(domains, best):
    a, b, c, _ = domains
    b, twin = again(b)
    assert b.same_rows(twin)
    assert not a.same_rows(b)
    assert distinct([a, b, twin, c]) == 3
    assert [each.name for each in others([a, b, twin, c], b)] == ["a", "c"]
    found = table([a, b, twin, c], best | {twin.name: best["b"]})
    assert not ((found.train == "b") & (found.test == "b again")).any()
    here = found[(found.train == "a") & (found.test == "b")]
    assert here[f"{HELD}b again"].isna().all()  # B's labels do not come back through its twin
    assert here["consensus_mean"].equals(here[f"{HELD}c"].rename("consensus_mean"))


def test_separability():
    rng = np.random.default_rng(0)
    near, far = (Rows(rng.normal(size=(60, 5)) + shift, np.tile([0, 1], 30), groups_of(60)) for shift in (0, 3))
    assert separability(near, far, 3, 0) > 0.95
    assert separability(near, near, 3, 0) == 0.5
    assert 0.3 < separability(near, layer_domain(1, n=60, d=5), 3, 0) < 0.7
    assert np.isnan(separability(near, near.take(np.arange(2)), 3, 0))


def test_a_resample_that_ranks_nothing_does_not_count():
    best = [np.array([3, 1, 2]), np.empty(0, dtype=int), np.array([1, 4])]
    assert candidates.selection_frequency(best, 2) == {1: 1.0, 3: 0.5, 4: 0.5}
    assert candidates.selection_frequency(best[1:2], 2) == {}


def test_every_statistic_says_what_it_sees(known):
    assert set(TARGET_ACCESS.values()) == {"no", "rows", "labels"}
    assert set(TARGET_ACCESS) <= set(known.columns)
    assert len(DIRECTIONS.feature_ids) == D

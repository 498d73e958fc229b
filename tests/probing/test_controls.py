from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy import sparse
from sklearn.decomposition import PCA

from planted import QUICK, SHARED, features, groups_of, layer_domain, sae_domain
from sae_transfer.core.space import residual_stream, sae_features
from sae_transfer.probing import controls, probe_files, residual_probes, sae_probes
from sae_transfer.probing.cross_validation import cross_validate
from sae_transfer.probing.kinds import Sources, fit
from sae_transfer.probing.probe_params import Tunable
from sae_transfer.probing.rows import Rows
from sae_transfer.probing.search import MIN_ROWS
from sae_transfer.stats.roc import auc


def components(train):
    (probe,) = cross_validate(partial(residual_probes.pca, params=QUICK), train, 0, QUICK)
    return probe


def wide_signal(seed, strength=3.0, d=30):
    """A stream whose first direction has much variance and tells the labels apart."""
    train = layer_domain(seed, d=d)
    X = train.X * np.r_[3.0, np.ones(d - 1)]
    return replace(train, X=X + np.outer(train.labels - 0.5, np.r_[3 * strength, np.zeros(d - 1)]))


def relu_sae(train, d_sae=100, seed=5):
    """Features that are a function of the stream: relu of random directions, thresholds of many densities."""
    rng = np.random.default_rng(seed)
    z = train.X @ rng.normal(size=(train.X.shape[1], d_sae))
    quantiles = rng.uniform(0.5, 0.99, d_sae)
    thresholds = np.array([np.quantile(column, q) for column, q in zip(z.T, quantiles, strict=True)])
    return replace(train, X=sparse.csr_array(np.maximum(z - thresholds, 0)))


# principal components


@pytest.mark.parametrize(("n", "d"), [(240, 30), (60, 90)])
def test_principal_directions_are_scikit_learns(n, d):
    X = np.random.default_rng(0).normal(size=(n, d)) * np.geomspace(1, 10, d) + 7
    mean, components = residual_probes._principal(X, 5)
    expected = PCA(5, svd_solver="full").fit(X)
    np.testing.assert_allclose(mean, expected.mean_, atol=1e-10)
    np.testing.assert_allclose(np.abs(np.sum(components * expected.components_, axis=1)), 1, atol=1e-8)


def test_components_end_where_the_rows_do():
    X = np.random.default_rng(0).normal(size=(10, 90))
    assert residual_probes._principal(X, 64)[1].shape == (9, 90)


def test_pca_finds_a_signal_of_much_variance_with_few_components_and_transfers():
    probe = components(wide_signal(0))
    assert (probe.kind, probe.feature_ids) == ("pca", None)
    assert probe.n_features in QUICK.N
    assert abs(probe.weights[0]) > 2 * np.abs(probe.weights[1:]).max()
    other = wide_signal(1)
    assert auc(probe.score(other.X), other.labels) > 0.95
    assert probe.cv_auc > 0.95


def test_pca_misses_a_signal_without_variance():
    train = layer_domain(0, d=40, direction=np.r_[np.zeros(39), 0.06])
    small = replace(train, X=train.X * np.r_[np.ones(39), 0.01])
    (probe,) = residual_probes.pca(small, 0, QUICK.model_copy(update={"N": (2, 8)}))
    (dense,) = residual_probes.residual(small, 0, QUICK)
    other = layer_domain(1, d=40, direction=np.r_[np.zeros(39), 0.06])
    X = other.X * np.r_[np.ones(39), 0.01]
    assert abs(auc(probe.score(X), other.labels) - 0.5) < 0.12
    assert dense.kind == "residual"


def test_noise_gives_components_a_cv_auc_of_one_half():
    found = [components(layer_domain(seed)).cv_auc for seed in range(6)]
    assert abs(np.mean(found) - 0.5) < 0.06


def test_constant_activations_have_components_worth_nothing():
    train = replace(layer_domain(0), X=np.full((240, 20), 1 / 3))
    probe = components(train)
    assert probe.cv_auc == 0.5
    assert np.isfinite([*probe.weights, probe.bias]).all()


# reconstruction


def test_reconstruction_is_the_residual_probe_on_other_rows():
    train = wide_signal(0)
    rebuilt = replace(train, X=train.X * np.r_[1.0, np.zeros(29)])
    (probe,) = cross_validate(partial(residual_probes.reconstruction, params=QUICK), rebuilt, 0, QUICK)
    (same,) = residual_probes.residual(rebuilt, 0, QUICK)
    np.testing.assert_array_equal(probe.weights, same.weights)
    assert (probe.kind, probe.input, probe.C) == ("reconstruction", "reconstruction", same.C)
    assert probe.cv_auc > 0.95


# random features


def test_random_features_are_as_dense_as_those_whose_place_they_take_and_are_others():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 200, 2000)
    chosen = rng.permutation(np.flatnonzero(counts >= MIN_ROWS))[:30]
    found = controls.matched_features(counts, chosen, np.random.default_rng(1))
    assert len(np.unique(found)) == 30
    assert not set(found) & set(chosen)
    assert counts[found].min() >= MIN_ROWS
    np.testing.assert_allclose(counts[found], counts[chosen], rtol=0.2, atol=4)
    assert (found != controls.matched_features(counts, chosen, np.random.default_rng(2))).any()


def test_where_there_are_too_few_other_features_chosen_ones_may_be_drawn():
    counts = np.r_[np.full(6, 20), np.zeros(10, dtype=int)]
    found = controls.matched_features(counts, np.arange(4), np.random.default_rng(0))
    assert len(np.unique(found)) == 4
    assert found.max() < 6


def fitted(train, params=QUICK):
    own = sae_probes.sparse_probes(train, 0, params)
    one = next(probe for probe in own if probe.kind == "sparse_1")
    return one, next(probe for probe in own if probe.kind == "sparse_n" and probe.selected)


def test_random_features_miss_a_planted_one():
    train, other = (sae_domain(seed, planted={SHARED: (0.05, 0.8)}) for seed in (0, 1))
    one, many = fitted(train)
    found = controls.random_features(train, one, many, 0, QUICK)
    assert [probe.repeat for probe in found] == [*range(QUICK.repeats)] * 2
    assert {probe.n_features for probe in found} == {1, many.n_features}
    assert {probe.C for probe in found if probe.family == "sparse_n"} == {many.C}
    areas = [auc(probe.score(other.X), other.labels) for probe in found if probe.family == "sparse_1"]
    assert auc(one.score(other.X), other.labels) > 0.8
    assert abs(np.mean(areas) - 0.5) < 0.1


# a random SAE


def test_a_random_sae_fires_as_often_as_the_sae_feature_by_feature():
    stream = layer_domain(0)
    counts = np.array([240, 200, 37, 12, 10])
    X, thresholds = controls.random_encoding(stream.X, counts, 0, 3)
    np.testing.assert_array_equal(np.diff(X.tocsc().indptr), counts)
    assert X.nnz / 240 == counts.sum() / 240  # L0
    assert thresholds.shape == (5,)


@pytest.mark.parametrize("columns", [1, 3, 1000])
def test_chunks_bound_the_memory_and_change_nothing(monkeypatch, columns):
    stream, counts = layer_domain(0).X, np.arange(10, 60)
    whole, thresholds = controls.random_encoding(stream, counts, 0, 0)
    monkeypatch.setattr(controls, "CHUNK_BYTES", columns * 8 * 240)
    widths = [chunk.shape[1] for chunk in controls._chunks(240, 20, 50, 0, 0)]
    assert max(widths) == min(columns, 50)
    again, same = controls.random_encoding(stream, counts, 0, 0)
    np.testing.assert_allclose(again.toarray(), whole.toarray(), atol=1e-12)
    np.testing.assert_allclose(same, thresholds, atol=1e-12)
    wanted = np.array([40, 0, 7])
    every = np.hstack(list(controls._chunks(1, 20, 50, 0, 0)))
    np.testing.assert_allclose(controls._directions(20, 50, 0, 0, wanted), every[:, wanted], atol=1e-12)


def test_a_random_saes_probe_carries_the_encoder_that_it_was_chosen_with(tmp_path):
    stream = wide_signal(0)
    train = relu_sae(stream)
    many = fitted(train)[1]
    found = controls.random_sae(train, stream, many, 0, QUICK)
    assert len(found) == 2 * QUICK.repeats
    density = np.diff(sparse.csc_array(train.X).indptr)
    counts = np.sort(density[density >= MIN_ROWS])[::-1]
    for probe in (found[1], found[-1]):
        assert probe.input == "residual"
        assert probe.encoder.shape == (31, probe.n_features)
        assert probe.encoder.dtype == np.float32
        X, _ = controls.random_encoding(stream.X, counts, 0, probe.repeat)
        best = sae_probes.ranked(replace(stream, X=X), 0, QUICK).feature_ids[: probe.n_features]
        expected = X[:, best].toarray() @ probe.weights + probe.bias
        np.testing.assert_allclose(probe.score(stream.X), expected, atol=1e-4)
    probe_files.write(tmp_path / "a.safetensors", found)
    for one, read in zip(found, probe_files.read(tmp_path / "a.safetensors"), strict=True):
        np.testing.assert_array_equal(one.score(stream.X), read.score(stream.X))


def test_a_random_sae_finds_what_any_direction_sees_and_nothing_in_noise():
    stream, other = wide_signal(0), wide_signal(1)
    found = controls.random_sae(relu_sae(stream), stream, fitted(relu_sae(stream))[1], 0, QUICK)
    areas = [auc(probe.score(other.X), other.labels) for probe in found if probe.family == "sparse_n"]
    assert np.mean(areas) > 0.8
    noise, unseen = layer_domain(0), layer_domain(1)
    coded = relu_sae(noise)
    found = controls.random_sae(coded, noise, fitted(coded)[1], 0, QUICK.model_copy(update={"repeats": 10}))
    areas = [auc(probe.score(unseen.X), unseen.labels) for probe in found]
    assert abs(np.mean(areas) - 0.5) < 0.06


def test_a_random_sae_on_constant_activations_is_worth_nothing():
    stream = replace(layer_domain(0), X=np.full((240, 20), 2.0))
    train = sae_domain(0)
    found = controls.random_sae(train, stream, fitted(train)[1], 0, QUICK)
    for probe in found:
        assert auc(probe.score(stream.X), stream.labels) == 0.5


def baselines(sources, params=QUICK):
    """What stands beside the SAE's own probes, without their shuffles."""
    found = fit(sae_features("s", 2), sources, 0, params)
    return [probe for probe in found if probe.kind in ("reconstruction", "random_features", "random_sae")]


def test_every_baseline_of_a_space_is_there_with_its_repeats():
    stream = wide_signal(0)
    train = relu_sae(stream)
    found = baselines(Sources(train, stream, stream))
    expected = [("reconstruction", "residual")]
    for kind in ("random_features", "random_sae"):
        for family in ("sparse_1", "sparse_n"):
            expected += [(kind, family)] * QUICK.repeats
    assert [(probe.kind, probe.family) for probe in found] == expected
    assert {probe.n_train for probe in found} == {240}
    for one, same in zip(found, baselines(Sources(train, stream, stream)), strict=True):
        np.testing.assert_array_equal(one.weights, same.weights)


def test_what_needs_the_stream_or_its_reconstruction_is_left_out_without_them():
    stream = wide_signal(0)
    train = relu_sae(stream)
    assert {probe.kind for probe in baselines(Sources(train))} == {"random_features"}
    assert {probe.kind for probe in baselines(Sources(train, stream))} == {"random_features", "random_sae"}
    assert {probe.kind for probe in baselines(Sources(train, rebuilt=stream))} == {"random_features", "reconstruction"}
    assert [probe.kind for probe in fit(residual_stream(2), stream, 0, QUICK)][-1] == "pca"


# what is drawn at random, and what an override chose


def overridden(**chosen):
    return QUICK.model_copy(update={"overrides": {"s": {"a": Tunable(**chosen)}}}).at("s", "a")


def of_family(found, kind, family):
    return [probe for probe in found if (probe.kind, probe.family) == (kind, family)]


@pytest.mark.parametrize("space", [residual_stream(2), sae_features("s", 2)])
def test_each_place_has_shuffles_of_its_own(space):
    train = layer_domain(0) if space.is_residual else sae_domain(0)
    places = ("layer_2/a", "layer_2/a", "layer_2/b", "layer_3/a")
    fits = [fit(space, Sources(train, place=place), 0, QUICK) for place in places]
    first, again, other_dataset, other_space = (
        [probe.weights for probe in found if probe.kind == "shuffled_labels"] for found in fits
    )
    assert all(map(np.array_equal, first, again))
    for other in (other_dataset, other_space):
        assert not any(map(np.array_equal, first, other))


@pytest.mark.parametrize("scaling", ["standard", "none"])
def test_random_features_and_random_saes_follow_an_overridden_scaling(scaling):
    stream = wide_signal(0)
    train = relu_sae(stream)
    usual, chosen = (baselines(Sources(train, stream), params) for params in (QUICK, overridden(scaling=scaling)))
    for kind in ("random_features", "random_sae"):
        before, after = (of_family(found, kind, "sparse_n") for found in (usual, chosen))
        assert {probe.scaling for probe in before} == {"rms"}
        assert {probe.scaling for probe in after} == {scaling}
        assert {probe.scaling for probe in of_family(chosen, kind, "sparse_1")} == {"rms"}
    random = of_family(chosen, "random_features", "sparse_n")[0]
    weights = sae_probes.sparse_n(train, random.feature_ids, random.C, selected=True, scaling=scaling).weights
    np.testing.assert_array_equal(random.weights, weights)


def test_a_random_sae_follows_an_overridden_ranking_where_the_sae_does():
    stream = wide_signal(0, strength=0.3)
    train, params = relu_sae(stream), overridden(ranking="mean_difference")
    usual, chosen = (baselines(Sources(train, stream), each) for each in (QUICK, params))
    ones, many = (of_family(chosen, "random_sae", family) for family in ("sparse_1", "sparse_n"))
    assert {probe.ranking for probe in ones} == {"auc"}
    assert {probe.ranking for probe in many} == {"mean_difference"}
    for before, after in zip(of_family(usual, "random_sae", "sparse_1"), ones, strict=True):
        np.testing.assert_array_equal(before.encoder, after.encoder)
    density = np.diff(sparse.csc_array(train.X).indptr)
    X, _ = controls.random_encoding(stream.X, np.sort(density[density >= MIN_ROWS])[::-1], 0, many[0].repeat)
    coded = replace(stream, X=X)
    by_rule = {
        rule: sae_probes.ranked(coded, 0, params, rule).feature_ids[: many[0].n_features]
        for rule in ("auc", "mean_difference")
    }
    assert by_rule["auc"].tolist() != by_rule["mean_difference"].tolist()
    expected = X[:, by_rule["mean_difference"]].toarray() @ many[0].weights + many[0].bias
    np.testing.assert_allclose(many[0].score(stream.X), expected, atol=1e-4)
    assert {probe.ranking for probe in of_family(chosen, "random_features", "sparse_n")} == {""}  # drawn, not ranked


def test_a_feature_that_is_silent_on_b_scores_every_row_alike():
    train = sae_domain(0, planted={SHARED: (0.05, 0.8)})
    one, _ = fitted(train)
    silent = Rows(
        features(np.random.default_rng(2), train.labels, planted={SHARED: (0, 0)}), train.labels, groups_of(240)
    )
    assert auc(one.score(silent.X), silent.labels) == 0.5

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from planted import QUICK, SHARED, groups_of, layer_domain, sae_domain
from sae_transfer.probing import residual_probes, sae_probes
from sae_transfer.probing.resampling import BootstrapParams, draw, refit, refitted, samples
from sae_transfer.probing.rows import Rows
from sae_transfer.stats import logistic
from sae_transfer.stats.folds import assign_folds

FEW = BootstrapParams(resamples=4, seeds=3)
STRONG = {SHARED: (0.05, 0.9)}


def rng(seed=0):
    return np.random.default_rng(seed)


def uneven_groups():
    return np.array([f"g{i}" for i in range(30) for _ in range(1 + i % 4)])


def test_a_bootstrap_sample_draws_as_many_groups_as_there_are_and_each_one_whole():
    groups = uneven_groups()
    rows = draw(groups, "bootstrap", rng())
    copies = Counter(rows.tolist())
    of_group = {name: {copies[i] for i in np.flatnonzero(groups == name)} for name in set(groups)}
    assert all(len(counts) == 1 for counts in of_group.values())
    drawn = [counts.pop() for counts in of_group.values()]
    assert sum(drawn) == 30
    assert max(drawn) > 1
    assert min(drawn) == 0


def test_another_data_sample_is_half_of_the_groups_without_a_copy():
    groups = uneven_groups()
    rows = draw(groups, "half_sample", rng())
    chosen = set(groups[rows])
    assert len(chosen) == 15
    assert rows.tolist() == np.flatnonzero(np.isin(groups, list(chosen))).tolist()


def test_the_copies_of_a_group_stay_in_one_fold():
    train = sae_domain(0, n=60)
    for seed in range(20):
        rows = draw(train.groups, "bootstrap", rng(seed))
        assert len(np.unique(rows)) < len(rows)
        drawn = train.take(rows)
        fold = assign_folds(drawn.labels, list(drawn.groups), 5, 0)
        assert all(len(set(fold[drawn.groups == name])) == 1 for name in set(drawn.groups))
        assert all(not set(rows[fold == k]) & set(rows[fold != k]) for k in range(5))


def test_samples_depend_on_seed_dataset_and_size_and_nothing_else():
    train = layer_domain(0, n=80)
    again = samples(replace(train, X=sae_domain(3, n=80).X), "bootstrap", 0, "a", FEW)  # another space
    first = samples(train, "bootstrap", 0, "a", FEW)
    assert len(first) == 4
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    assert len({tuple(rows) for rows in first}) == 4
    assert len(samples(train, "half_sample", 0, "a", FEW)) == 3
    for other in (samples(train, "bootstrap", 1, "a", FEW), samples(train, "bootstrap", 0, "b", FEW)):
        assert not any(np.array_equal(*pair) for pair in zip(first, other, strict=True))


@pytest.mark.parametrize(("n_groups", "count"), [(9, 0), (10, 4)])
def test_fewer_than_ten_groups_are_not_resampled(n_groups, count):
    train = layer_domain(0, n=40)
    train = replace(train, groups=np.array([f"g{i % n_groups}" for i in range(40)]))
    assert len(samples(train, "bootstrap", 0, "a", FEW)) == count


@pytest.mark.parametrize("key", ["resamples", "seeds"])
def test_a_spread_needs_two_samples(key):
    with pytest.raises(ValidationError):
        BootstrapParams(**{key: 1})


def fitted_on(train, method):
    return [replace(probe, n_train=len(train)) for probe in method(train, 0, QUICK)]


def test_probes_of_a_layer_are_trained_anew_at_their_own_c():
    train = layer_domain(0, direction=np.r_[2.0, np.zeros(19)])
    fitted = fitted_on(train, residual_probes.residual) + fitted_on(train, residual_probes.mean_difference)
    fitted[0] = replace(fitted[0], C=0.123)
    same = refit(fitted, train, 0, QUICK).probes
    np.testing.assert_array_equal(same[1].weights, fitted[1].weights)
    part = train.take(np.arange(0, 240, 3))
    other = refit(fitted, part, 0, QUICK).probes
    assert other[0].C == 0.123
    np.testing.assert_array_equal(other[0].weights, logistic.fit_path(part.X, part.labels, [0.123], "standard")[0][0])
    np.testing.assert_array_equal(
        other[1].weights, part.X[part.labels == 1].mean(axis=0) - part.X[part.labels == 0].mean(axis=0)
    )


def test_probes_of_an_sae_are_trained_anew_on_the_features_that_the_sample_ranks():
    train = sae_domain(0, planted=STRONG)
    fitted = fitted_on(train, sae_probes.sparse_probes)
    same = refit(fitted, train, 0, QUICK)
    for before, after in zip(fitted, same.probes, strict=True):
        assert (before.rank, before.selected, before.C) == (after.rank, after.selected, after.C)
        np.testing.assert_array_equal(before.feature_ids, after.feature_ids)
        np.testing.assert_array_equal(before.weights, after.weights)
    other = refit(fitted, sae_domain(0, planted={3: (0.05, 0.9)}), 0, QUICK)
    assert fitted[0].feature_ids.tolist() == [SHARED]
    assert other.probes[0].feature_ids.tolist() == [3]
    assert other.ranking[0] == 3
    for probe in other.probes:
        start = max(probe.rank - 1, 0)
        np.testing.assert_array_equal(probe.feature_ids, other.ranking[start : start + len(probe.weights)])


def test_a_sample_that_lacks_features_has_no_probe_of_that_size():
    train = sae_domain(0, planted=STRONG)
    fitted = fitted_on(train, sae_probes.sparse_probes)
    poor = train.X.tolil()
    poor[:, [i for i in range(100) if i not in (SHARED, 5)]] = 0
    found = refit(fitted, replace(train, X=poor.tocsr()), 0, QUICK)
    assert sorted(found.ranking) == [5, SHARED]
    sizes = [(probe.rank, len(probe.weights)) for probe in fitted]
    assert sizes == [(1, 1), (2, 1), (3, 1), (0, 2), (0, 8), (0, 32)]
    assert [probe is None for probe in found.probes] == [False, False, True, False, True, True]
    silent = refit(fitted, replace(train, X=train.X * 0), 0, QUICK)
    assert [*silent.probes] == [None] * 6


def test_a_sample_that_cannot_be_folded_has_no_probes():
    train = layer_domain(0, n=60)
    fitted = fitted_on(train, residual_probes.residual)
    one_class, few = np.flatnonzero(train.labels == 1), np.arange(4)
    found = refitted(fitted, train, [one_class, few, np.arange(60)], 0, QUICK)
    assert [one.probes[0] is None for one in found] == [True, True, False]


def test_refits_are_the_same_from_run_to_run_and_train_on_the_drawn_rows_alone():
    train = sae_domain(1, planted=STRONG)
    fitted = fitted_on(train, sae_probes.sparse_probes)
    rows = draw(train.groups, "half_sample", rng())
    unseen = np.setdiff1d(np.arange(len(train)), rows)
    flipped = train.labels.copy()
    flipped[unseen] = 1 - flipped[unseen]
    disturbed = Rows(train.X, flipped, groups_of(len(train), 2))
    one = refitted(fitted, train, [rows], 0, QUICK)[0]
    other = refitted(fitted, disturbed, [rows], 0, QUICK)[0]
    np.testing.assert_array_equal(one.ranking, other.ranking)
    for a, b in zip(one.probes, other.probes, strict=True):
        np.testing.assert_array_equal(a.weights, b.weights)

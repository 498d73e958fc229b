"""Directions that were planted are found closest, orthogonal ones lie where chance does."""

import numpy as np
import pytest

from sae_transfer.analyses.similarity import (
    TABLE,
    Layer,
    SparseDirection,
    layer_rows,
    residual_rows,
    sparse_rows,
    summarise,
)
from sae_transfer.probing.probe import Probe
from sae_transfer.stats.cosines import cosine, mahalanobis_cosine

D = 40


def layer(rng, probes, resamples=20, number=3, covariance=None):
    return Layer(
        number,
        probes,
        {name: probe + 0.1 * rng.normal(size=(resamples, D)) for name, probe in probes.items()},
        {name: rng.normal(size=(20, D)) for name in probes},
        {name: np.eye(D) if covariance is None else covariance for name in probes},
    )


def direction(vector, kind="sparse_1", rank=1, n=1, selected=True, random=None):
    probe = Probe(kind, kind, np.ones(n), 0.0, np.arange(n), rank=rank, selected=selected)
    return SparseDirection(probe, vector, np.zeros((0, D)) if random is None else random)


@pytest.fixture
def planted():
    """The probe lies between two features; the top one leans to it, the second is orthogonal, N = 2 comes closer."""
    rng = np.random.default_rng(0)
    first, second, third = np.linalg.qr(rng.normal(size=(D, 3)))[0].T
    probes = {"a": first + second, "b": third}
    found = [
        direction(2 * first),
        direction(third, rank=2, selected=False),
        direction(first + second, "sparse_n", 0, 2, random=rng.normal(size=(20, D))),
    ]
    features = {"decoder": np.vstack([first, third, rng.normal(size=(200, D))])}
    return TABLE.frame(sparse_rows(layer(rng, probes), "a", {"decoder": found}, features))


def against(rows, other="a", measure="cosine"):
    return rows[(rows["other"] == "residual") & (rows["other_train"] == other) & (rows["measure"] == measure)]


def test_a_planted_direction_is_found_closest_and_an_orthogonal_one_lies_where_chance_does(planted):
    top, second, many = against(planted).to_dict("records")
    assert top["similarity"] == pytest.approx(1 / np.sqrt(2))
    assert top["null_percentile"] == pytest.approx(201 / 202)
    assert top["similarity"] > top["null_high"] > top["null_median"] > top["null_low"]
    assert second["similarity"] == pytest.approx(0, abs=1e-12)
    assert second["null_percentile"] < 0.05
    assert many["similarity"] == pytest.approx(1)
    assert many["gain_over_top"] == pytest.approx(1 - 1 / np.sqrt(2))
    assert 0 < many["gain_over_top_low"] < many["gain_over_top"]
    assert top["similarity_low"] < top["similarity"] < top["similarity_high"] + 0.1


def test_other_datasets_probes_meet_the_chosen_directions_alone(planted):
    other = against(planted, "b")
    assert list(other["direction"]) == ["sparse_1", "sparse_n"]
    np.testing.assert_allclose(other["similarity"], 0, atol=1e-12)
    assert set(against(planted, "b", "mahalanobis")["covariance"]) == {"a", "b"}


def test_the_top_features_are_compared_with_each_other(planted):
    pairs = planted[planted["other"] == "sparse_1"]
    assert list(pairs["other_rank"]) == [2, 2]
    assert list(pairs["measure"]) == ["cosine", "mahalanobis"]
    assert (pairs["reason"] == "similarity_low: features are not resampled").all()


def test_the_answer_is_in_numbers(planted):
    top, many = summarise(planted)
    assert "0.71 on average (0.71 to 0.71 over 1 pairs" in top
    assert "100% of the SAE's features are less similar, and in 1 of 1 pairs" in top
    assert "reaches 1.00 on average, +0.29 against the top feature. It is closer in 1 of 1 pairs;" in many
    assert "clearly closer in 1 and clearly farther in 0" in many
    assert summarise(planted.iloc[:0]) == ["No SAE probe can be compared with a residual probe."]


def test_residual_probes_of_datasets_bootstraps_and_layers():
    rng = np.random.default_rng(1)
    shared = rng.normal(size=D)
    probes = {"a": shared, "b": shared + 0.5 * rng.normal(size=D), "c": rng.normal(size=D)}
    S = np.diag(rng.uniform(0.1, 3, D))
    one, other = layer(rng, probes, covariance=S), layer(rng, probes, number=5)
    rows = TABLE.frame(residual_rows(one) + layer_rows(one, other))
    near, far = (
        rows[(rows["train"] == "a") & (rows["other_train"] == name) & (rows["covariance"] == "")].iloc[0]
        for name in "bc"
    )
    assert near["similarity"] == pytest.approx(cosine(shared[None], probes["b"][None])[0, 0])
    assert near["similarity"] > near["null_high"] > abs(far["similarity"])
    assert near["similarity_low"] < near["similarity"] < near["similarity_high"] + 0.05
    under = rows[(rows["train"] == "a") & (rows["other_train"] == "b") & (rows["covariance"] == "b")].iloc[0]
    assert under["similarity"] == pytest.approx(mahalanobis_cosine(shared[None], probes["b"][None], S)[0, 0])
    assert len(rows[rows["direction"] == "bootstrap"]) == 6
    assert (rows[rows["direction"] == "bootstrap"]["similarity"] > 0.9).all()
    across = rows[rows["other_layer"] == 5]
    np.testing.assert_allclose(across["similarity"], 1)


def test_layers_of_different_width_are_not_compared():
    rng = np.random.default_rng(2)
    narrow = Layer(1, {"a": np.ones(5)}, {}, {"a": np.ones((1, 5))}, {"a": np.eye(5)})
    assert layer_rows(narrow, layer(rng, {"a": np.ones(D)})) == []


def test_what_cannot_be_computed_is_missing_with_its_reason():
    rng = np.random.default_rng(3)
    alone = layer(rng, {"a": np.ones(D)}, resamples=0, covariance=np.zeros((D, D)))
    found = {"decoder": [direction(np.ones(D)), direction(np.zeros(D), rank=2)]}
    rows = TABLE.frame(sparse_rows(alone, "a", found, {"decoder": np.zeros((0, D))}))
    assert not residual_rows(alone)
    plain, nothing = against(rows).to_dict("records")
    assert plain["reason"] == "similarity_low: fewer than two training bootstraps; null_median: nothing to draw from"
    assert nothing["reason"].startswith(
        "similarity: a direction of no length or a score that does not vary; similarity_low:"
    )
    constant = against(rows, measure="mahalanobis")
    assert constant["similarity"].isna().all()
    assert constant["reason"].str.startswith("similarity: ").all()

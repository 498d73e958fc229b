"""A probe as a fitted classifier."""

import numpy as np
import pytest

from planted import QUICK, layer_domain, sae_domain
from sae_transfer.core.errors import UserError
from sae_transfer.core.space import residual_stream, sae_features
from sae_transfer.probing.kinds import Sources, fit
from sae_transfer.probing.probe import Probe

SAE, LAYER = sae_domain(0, n=120, d=30), layer_domain(0, n=120, d=6)


@pytest.fixture(scope="module")
def fitted():
    sources = Sources(SAE, LAYER, LAYER)
    return fit(residual_stream(1), LAYER, 0, QUICK) + fit(sae_features("s", 1), sources, 0, QUICK)


def test_its_face_is_that_of_a_classifier(fitted):
    for probe in fitted:
        X = SAE.X if probe.input == "space" and "sparse" in probe.family else LAYER.X
        p = probe.probability(probe.score(X))
        np.testing.assert_allclose(probe.predict_proba(X), np.column_stack([1 - p, p]))
        np.testing.assert_array_equal(probe.predict(X), probe.classes_[(p >= 0.5).astype(int)])
        np.testing.assert_array_equal(probe.decision_function(X) >= 0, p >= 0.5)


def test_another_width_is_refused_by_every_probe(fitted):
    widths = {"residual": 6, "reconstruction": 6}
    for probe in fitted:
        width = widths.get(probe.input, 6 if probe.family == "residual" else 30)
        assert probe.n_features_in_ == width
        for other in (width - 1, width + 1):
            with pytest.raises(UserError, match=f"X has {other} columns, and the {probe.kind} probe was trained on"):
                probe.score(np.zeros((2, other)))


def test_a_probe_that_does_not_know_its_width_scores():
    assert Probe("sparse_1", "sparse_1", np.ones(1), 0.0, np.array([2])).score(np.eye(3)).tolist() == [0, 0, 1]


def test_nan_is_refused_before_it_is_scored(fitted):
    with pytest.raises(UserError, match="X has nan in row 1, column 0"):
        fitted[0].predict([[0.0] * 6, [np.nan] * 6])

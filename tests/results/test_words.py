"""Names of columns become words; names that a person chose stay as they are."""

import pytest

from sae_transfer.analyses.candidate_statistics import STATISTICS
from sae_transfer.results.words import BY_COLUMN, words


@pytest.mark.parametrize(
    ("column", "name", "said"),
    [
        ("probe", "sparse_1", "1-sparse SAE probe"),
        ("key", "shuffled_labels_residual", "shuffled labels, residual stream"),
        ("policy", "few_16", "best on 16 labels of B"),
        ("predictor", "few_64", "AUC on 64 labels of B"),
        ("policy", "agreement", "agrees with the sources' residual probes"),
        ("predictor", "agreement", "agrees with A's residual probe on B"),
        ("predictor", "one_of_my_own", "one of my own"),
        ("resampling", "half_sample", "half sample"),
        ("sae", "narrow_3", "narrow_3"),
        ("train", "in_domain", "in_domain"),  # a dataset of this name
    ],
)
def test_a_name_is_said_by_the_column_that_it_stands_in(column, name, said):
    assert words(column, name) == said


def test_every_statistic_of_the_project_has_words():
    assert set(STATISTICS) <= set(BY_COLUMN["predictor"])

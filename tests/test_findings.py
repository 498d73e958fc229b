"""What the report says in words, on worlds whose truth is known."""

import pandas as pd
import pytest

from domains import FEW, domain, graded, resamples, table, twins, world
from sae_transfer.generalization.domains import TOO_FEW
from sae_transfer.generalization.findings import of_oracle_gap, of_policies, of_predictors
from sae_transfer.generalization.oracle import oracle_gaps
from sae_transfer.generalization.policies import Knowledge, policies
from sae_transfer.generalization.predictors import predicted_auc, predictors
from sae_transfer.generalization.statistics import few_labels


def findings(gaps, predictors, policies):
    return [*of_oracle_gap(gaps), *of_predictors(predictors), *of_policies(policies)]


def tables(domains):
    best = resamples(domains, 2)
    found = table(domains, best)
    found = found.assign(predicted=predicted_auc(found, twins(domains)))
    few = {each.name: few_labels(each, FEW, 2, 0) for each in domains}
    made = (
        oracle_gaps(domains, 0.8),
        predictors(found, twins(domains)),
        policies(domains, Knowledge(best, found, few)),
    )
    return [one.assign(sae="narrow") for one in made]


@pytest.fixture(scope="module")
def said():
    return findings(*tables(world()))


def sentence(said, *words):
    found = [one for one in said if all(word in one for word in words)]
    assert len(found) == 1, said
    return found[0]


def test_every_number_comes_with_the_domains_that_it_rests_on(said):
    assert all("domains" in one for one in said if any(letter.isdigit() for letter in one))
    assert not any("nan" in one for one in said)


def test_what_was_planted_is_said(said):
    assert "it is surely not good although a good feature exists" in sentence(said, "1-sparse: A's selection loses")
    assert "3 of 12" in sentence(said, "1-sparse: A's selection loses")  # from a to each of the others
    assert "residual probes 0.98" in sentence(said, "The bound", "over all features")
    assert "worst_case 0.0" in sentence(said, "1-sparse, mean regret")


def test_what_predicts_is_said_apart_from_what_does_not():
    said = findings(*tables(graded(400)))
    predict, _, rest = sentence(said, "Seeing B's rows without labels").partition(" predict the AUC on B")
    assert "agreement_sources" in predict
    assert "density_shift" in rest
    assert "consensus_mean" in sentence(said, "Seeing no row of B").partition(" predict the AUC on B")[0]


def test_it_is_honest_where_nothing_predicts():
    said = findings(*tables([domain(name, i, {}) for i, name in enumerate("abcd")]))
    for sees in ("Seeing no row of B", "Seeing B's rows without labels"):
        assert "predict the AUC on B" not in sentence(said, sees)
        assert "hardly predict it" in sentence(said, sees)
    assert "0 of 12" in sentence(said, "1-sparse: A's selection loses")


def test_two_domains_are_too_few_and_it_says_so():
    said = findings(*tables(world(names="ab")))
    for kind in ("features", "sparse probes", "residual probes"):
        assert f"For {kind} no combined predictor could be judged" in " ".join(said)


def test_too_few_resamples_for_the_correction_are_said():
    said = findings(*tables(world(names="abc", resamples=60)))
    assert said[-1].startswith(f"Nothing can pass Holm's correction here: {TOO_FEW}")


def test_a_single_domain_leaves_nothing_to_say():
    empty = tables(world(names="ab"))
    said = findings(*(pd.DataFrame(one.iloc[:0]) for one in empty))
    assert all("no combined predictor" in one for one in said)

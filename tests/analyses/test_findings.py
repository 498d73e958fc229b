"""What the report says in words, on worlds whose truth is known."""

import pandas as pd
import pytest

from domains import FEW, domain, graded, resamples, same_data, table, world
from sae_transfer.analyses import oracle_gap, policies, predictors
from sae_transfer.analyses.candidate_statistics import few_labels
from sae_transfer.analyses.policies import Knowledge


def findings(gaps, predicted, chosen):
    told = [*oracle_gap.summarise(gaps), *predictors.summarise(predicted)]
    return [*told, policies.claim(policies.mean_regret(chosen))]


def tables(domains):
    best = resamples(domains, 2)
    found = table(domains, best)
    few = {each.name: few_labels(each, FEW, 0) for each in domains}
    return (
        oracle_gap.oracle_gaps(domains, 0.8, "narrow"),
        predictors.predictors(found, same_data(domains), "narrow"),
        policies.policies(domains, Knowledge(best, found, few), "narrow"),
    )


@pytest.fixture(scope="module")
def said():
    return findings(*tables(world()))


def sentence(said, *words):
    found = [one for one in said if all(word in one for word in words)]
    assert len(found) == 1, said
    return found[0]


def test_no_number_is_missing_in_what_is_said(said):
    assert not any("nan" in one for one in said)


def test_what_was_planted_is_said(said):
    missed = sentence(said, "1-sparse: on B, what A chose loses")
    assert "Of 12 cases (SAE, A, B), A missed a good choice in 3 and" in missed  # from a to each of the others
    assert "none existed in 0" in missed
    assert "residual probes 0.98" in sentence(said, "The bound", "over all features")
    assert "it loses 0.0" in sentence(said, "Without a label of B, the best policy is")


def predicted(domains):
    _, found, _ = tables(domains)
    return predictors.by_predictor(found[found["candidates"] == "features"])[1]


def test_what_predicts_is_said_by_what_it_sees_of_b():
    means = predicted(graded(400))
    told = predictors.claim(means)
    best = means.set_index("predictor")["spearman"]
    assert "Without labels of B, “agrees with all sources' probes on B” predicts the AUC on B best (rank" in told
    assert f"(rank correlation {best['agreement_sources']:.2f})" in told
    assert "without any row of B, “mean AUC on the other sources” predicts the AUC on B best (rank" in told
    assert best["density_shift"] < 0.5 < best["agreement_sources"]


def test_it_is_honest_where_nothing_predicts():
    noise = [domain(name, i, {}) for i, name in enumerate("abcd")]
    told = predictors.claim(predicted(noise))
    assert told.count("nothing predicts it") == 2
    assert "a good choice in 0 and" in sentence(findings(*tables(noise)), "1-sparse: on B, what A chose loses")


def test_two_domains_are_too_few_and_it_says_so():
    said = findings(*tables(world(names="ab")))
    for kind in ("features", "sparse probes", "residual probes"):
        assert f"For {kind} no combined predictor could be judged" in " ".join(said)


def test_a_single_domain_leaves_nothing_to_say():
    empty = tables(world(names="ab"))
    said = findings(*(pd.DataFrame(one.iloc[:0]) for one in empty))
    assert all("no combined predictor" in one for one in said[:-1])
    assert said[-1] == "No policy could be set against the paper's choice."

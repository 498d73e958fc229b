"""Domains whose truth is known: one feature shared by all, one spurious in the first, one dense elsewhere, an XOR."""

from dataclasses import replace

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from planted import QUICK, SHARED, SPURIOUS, balanced, features, groups_of
from sae_transfer.analyses import candidates
from sae_transfer.analyses.candidate_statistics import few_labels, separability, statistics
from sae_transfer.analyses.candidate_table import joined
from sae_transfer.analyses.candidates import Stream
from sae_transfer.analyses.domains import Domain, pairs
from sae_transfer.analyses.generalization import GeneralizationParams
from sae_transfer.artifacts.features import Directions
from sae_transfer.probing import residual_probes, sae_probes
from sae_transfer.probing.evaluations import TransferParams, evaluation_of
from sae_transfer.probing.rows import Rows

threadpool_limits(1)  # as the stages do: beside other load, threads on matrices this small wait for each other

DENSE, XOR, D, WIDTH = 5, (8, 9), 60, 24
COMMON = {SHARED: (0.05, 0.9)}
PLANTED = {
    "a": COMMON | {SPURIOUS: (0.01, 0.99), DENSE: (0.05, 0.4)},
    "b": COMMON | {SPURIOUS: (0.3, 0.3), DENSE: (0.75, 0.95)},
    "c": COMMON | {SPURIOUS: (0.3, 0.3), DENSE: (0.05, 0.4)},
    "d": COMMON | {SPURIOUS: (0.3, 0.3), DENSE: (0.05, 0.4)},
}
DECODER = np.random.default_rng(7).normal(size=(D, WIDTH)) / np.sqrt(WIDTH)
DIRECTIONS = Directions(np.arange(D), DECODER, DECODER, "batchtopk")
FEW = GeneralizationParams(few_labels=(16, 64), draws=4)


def rows(rng, n, planted, xor=False):
    """(features, labels, groups); with `xor` the label is that of two features, each of which tells nothing alone."""
    labels = balanced(rng, n)
    X = features(rng, labels, D, 0.15, planted).tolil()
    if xor:
        first = rng.random(n) < 0.5
        for feature, fires in zip(XOR, (first, first ^ (labels == 1)), strict=True):
            X[:, [feature]] = (fires * rng.gamma(3.0, 1.0, n))[:, None]
    return sparse.csr_array(X), labels, groups_of(n, 2)


def domain(name, seed, planted, *, xor=False, n=200, n_test=160, resamples=1000):
    rng = np.random.default_rng(seed)
    train, unseen = (rows(rng, size, planted, xor) for size in (n, n_test))
    return fitted(name, Rows(*train), unseen, resamples)


def fitted(name, train, unseen, resamples=1000):
    """The domain after the standard procedure ran on its training rows."""
    X, labels, groups = unseen
    test = evaluation_of(labels, groups, name, 0, TransferParams(resamples=resamples))
    found = [probe for probe in sae_probes.sparse_probes(train, 0, QUICK) if probe.selected]
    found = [replace(probe, n_train=len(train), cv_auc=0.9) for probe in found]
    return Domain(name, frozenset([name]), train, X, test, sae_probes.ranked(train, 0, QUICK), *found)


def again(domain):
    """(the domain, its rows under another name)"""
    names = frozenset([domain.name, f"{domain.name} again"])
    return replace(domain, names=names), replace(domain, names=names, name=f"{domain.name} again")


def world(seed=0, names="abcd", **options):
    return [domain(name, seed + i, PLANTED[name], **options) for i, name in enumerate(names)]


def graded(resamples):
    """Half of 30 features tell the label everywhere, each as well as its rate allows; the rest tell it in a alone."""
    rates = np.random.default_rng(0).uniform(0.2, 0.9, 30)
    alone = {"a": (0.1, 0.9)}
    planted = {
        name: {f: (0.1, rates[f]) if f < 15 else alone.get(name, (0.1, 0.1)) for f in range(30)} for name in "abcd"
    }
    return [domain(name, i, planted[name], resamples=resamples) for i, name in enumerate(planted)]


def stream(domain, seed=0):
    """Residual streams that superpose the features, and the probes trained on them."""
    rng = np.random.default_rng(seed)
    train, unseen = (
        (X @ DECODER + 0.1 * rng.normal(size=(X.shape[0], WIDTH))) for X in (domain.train.X, domain.unseen)
    )
    dense = Rows(train, domain.train.labels, domain.train.groups)
    residual = residual_probes.residual(dense, 0, QUICK)[0]
    return Stream(dense, unseen, residual, residual_probes.mean_difference(dense, 0, QUICK)[0])


def resamples(domains, n=6):
    """What the bootstrap of A's groups found, by domain: the features of each sample, best first."""
    best = {}
    for each in domains:
        names, best[each.name] = np.unique(each.train.groups), []
        for i in range(n):
            drawn = np.random.default_rng(i).choice(names, len(names))
            sample = each.train.take(np.concatenate([np.flatnonzero(each.train.groups == name) for name in drawn]))
            best[each.name].append(sae_probes.ranked(sample, 0, QUICK).feature_ids)
    return best


def table(domains, best, streams=None, whole_probes=True):
    """Everything that is known of A's candidates for every B."""
    streams = streams or {each.name: stream(each) for each in domains}
    few = {each.name: few_labels(each, FEW, 0) for each in domains}
    made = {}
    for a in domains:
        frequency = candidates.selection_frequency(best[a.name], 3)
        single = candidates.features(a, domains, DIRECTIONS, frequency, np.random.default_rng(0))
        made[a.name] = [single]
        if whole_probes:
            made[a.name].append(candidates.whole_probes(a, domains, streams, DIRECTIONS))

    def apart(a, b):
        return separability(streams[a.name].train, streams[b.name].train, 3, 0)

    found = [
        statistics(one, a, b, domains, streams, few[b.name], apart(a, b))
        for a, b in pairs(domains)
        if not a.same_rows(b)
        for one in made[a.name]
    ]
    return joined(found, same_data(domains))


def same_data(domains):
    return {a.name: a.names for a in domains}


def relabelled(domain, part, seed=0):
    """The domain with its training or its test labels permuted, and trained anew where they were its training's."""
    rng = np.random.default_rng(seed)
    if part == "test":
        return replace(domain, test=replace(domain.test, labels=rng.permutation(domain.test.labels)))
    train = replace(domain.train, labels=rng.permutation(domain.train.labels))
    unseen = domain.unseen, domain.test.labels, domain.test.groups
    return replace(fitted(domain.name, train, unseen, len(domain.test.weights)), names=domain.names)

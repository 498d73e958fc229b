"""The peers' regimes: few training rows, unbalanced ones, wrong labels; SAE probes against the residual stream probe.

What SAE probes might be good for (arXiv 2502.16681), in domain and out of it, under both rules that rank features:
`auc`, ours, and `mean_difference`, that of sae-probes. Every probe is trained as in the study, C and N chosen by
cross-validation on the altered rows. Test rows and their labels are never altered. Pure functions on arrays.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from sae_transfer import metrics
from sae_transfer.config import Params
from sae_transfer.probes import Probe, ProbeParams, Training, residual, sparse_probes
from sae_transfer.records import UserError, generator
from sae_transfer.stability import HeldOut

Regime = Literal["size", "imbalance", "noise"]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Altered = tuple[Ints, NDArray[np.int_]]  # which of the rows, and what they are labelled

RULES: tuple[Literal["auc", "mean_difference"], ...] = ("auc", "mean_difference")
COLUMNS = (
    "space layer sae train test in_domain regime value probe ranking n_train draws auc auc_low auc_high "
    "delta_residual delta_low delta_high reason"
).split()
"""results/regimes.csv, one row a (space, A, B, regime, value, probe, ranking). `regime` is what was altered and `value`
how far: `size`, the number of rows, as many of each label (the largest is all of A's); `imbalance`, the share of
answerable rows, of half of A's rows; `noise`, the share of each label's rows whose label is flipped. `auc` is the mean
over `draws` draws of the altered rows, `delta_residual` the mean of its difference to the residual probe of the same
layer on the same draws, both with Student's 95% interval of that mean."""


class RegimeParams(Params):
    """Section `regimes` of the params; no datasets, no regimes."""

    datasets: tuple[str, ...] = ()
    sizes: tuple[PositiveInt, ...] = (16, 32, 64, 128, 256, 512, 1024)
    imbalance: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.05, 0.1, 0.25, 0.5)
    noise: tuple[Annotated[float, Field(ge=0, le=0.5)], ...] = (0.1, 0.2, 0.3)
    draws: int = Field(5, ge=2)


def points(train: Training, params: RegimeParams) -> Iterator[tuple[Regime, float, int]]:
    """(regime, value, number of draws) of every altered training set; all of A's rows can be drawn in one way only."""
    most = 2 * int(np.bincount(train.labels, minlength=2).min())
    for size in sorted(params.sizes):
        if size < most:
            yield "size", size, params.draws
    yield "size", most, 1
    for share in params.imbalance:
        yield "imbalance", share, params.draws
    for share in params.noise:
        yield "noise", share, params.draws


def altered(
    labels: NDArray[np.int_], groups: NDArray[np.str_], regime: Regime, value: float, rng: np.random.Generator
) -> Altered:
    """The rows of an altered training set, in ascending order, and their labels.

    Args:
        labels: [n], of A's training rows.
        groups: [n], of those; rows that are dropped are dropped by whole groups, but for the last one.
        regime: what to alter.
        value: rows, share of answerable rows, or share of each label's rows to flip.
        rng: decides which rows.
    """
    counts = np.bincount(labels, minlength=2)
    if regime == "noise":
        flipped = labels.copy()
        for label in (0, 1):
            chosen = rng.permutation(np.flatnonzero(labels == label))[: round(value * counts[label])]
            flipped[chosen] = 1 - label
        return np.arange(len(labels)), flipped
    total = int(counts.min()) if regime == "imbalance" else int(value)
    answerable = round(value * total) if regime == "imbalance" else total // 2
    names, of_row = np.unique(groups, return_inverse=True)
    order = np.argsort(rng.permutation(len(names))[of_row], kind="stable")
    quota = {0: total - answerable, 1: answerable}
    at = np.sort(np.concatenate([order[labels[order] == label][:n] for label, n in quota.items()]))
    return at, labels[at]


def fitted(train: Training, seed: int, params: ProbeParams) -> list[Probe]:
    """The residual probe of a dense space; of an SAE's, the selected 1-sparse and N-sparse probes under each rule."""
    if isinstance(train.X, np.ndarray):
        return residual(train, seed, params)
    by_rule = [sparse_probes(train, seed, params.model_copy(update={"ranking": rule})) for rule in RULES]
    return [probe for probes in by_rule for probe in probes if probe.selected]


@dataclass(frozen=True)
class Setting:
    """What stays as it is: B's test rows by space and dataset, the seed, and how probes are trained, by space."""

    tests: Mapping[str, Mapping[str, HeldOut]]
    seed: int
    probe: Mapping[str, ProbeParams]


Key = tuple[str, str, str]  # space, probe, ranking


def rows(
    dataset: str, train: Mapping[str, Training], setting: Setting, regimes: RegimeParams
) -> Iterator[dict[str, Any]]:
    """The table's rows of one A, but for what names a space.

    Args:
        dataset: A's name.
        train: A's training rows by space, the layer's residual stream first, then SAEs on that layer.
        setting: what stays as it is.
        regimes: what to alter.
    """
    layer, *_ = train
    for regime, value, draws in points(train[layer], regimes):
        drawing = [generator(setting.seed, "regime", dataset, regime, value, draw) for draw in range(draws)]
        chosen = [altered(train[layer].labels, train[layer].groups, regime, value, rng) for rng in drawing]
        areas = {
            key: found for space, own in train.items() for key, found in _areas(space, own, chosen, setting).items()
        }
        for (space, probe, ranking), found in areas.items():
            for j, test in enumerate(setting.tests[space]):
                yield {
                    "space": space,
                    "train": dataset,
                    "test": test,
                    "in_domain": test == dataset,
                    "regime": regime,
                    "value": value,
                    "probe": probe,
                    "ranking": ranking,
                    "n_train": len(chosen[0][0]),
                    **_summary(found[:, j], areas[layer, "residual", ""][:, j], is_residual=space == layer),
                }


def _areas(space: str, train: Training, chosen: Sequence[Altered], setting: Setting) -> dict[Key, Floats]:
    """AUC [draws, tests] of every probe of a space, NaN where the rows were too few for one."""
    tests = list(setting.tests[space].values())
    areas = {(space, *kind): np.full((len(chosen), len(tests)), np.nan) for kind in _kinds(train)}
    for draw, (at, labels) in enumerate(chosen):
        for probe in _fitted_or_none(replace(train.rows(at), labels=labels), setting.seed, setting.probe[space]):
            scored = [metrics.auc(probe.score(test.X), test.labels) for test in tests]
            areas[space, probe.kind, probe.ranking][draw] = scored
    return areas


def _kinds(train: Training) -> list[tuple[str, str]]:
    if isinstance(train.X, np.ndarray):
        return [("residual", "")]
    return [(probe, rule) for rule in RULES for probe in ("sparse_1", "sparse_n")]


def _fitted_or_none(train: Training, seed: int, params: ProbeParams) -> list[Probe]:
    try:
        return fitted(train, seed, params)
    except UserError:  # too few groups for the folds, or no feature that fires often enough
        return []


def _summary(areas: Floats, residual: Floats, *, is_residual: bool) -> dict[str, Any]:
    differences, counted = areas - residual, ~np.isnan(areas)
    lost = int((~counted).sum())
    reasons = [f"{lost} of {len(areas)} draws have too few groups or features"] if lost else []
    area = _mean(areas[counted])
    delta = _mean(differences[~np.isnan(differences)] if not is_residual else np.empty(0))
    if counted.sum() == 1:
        reasons.append("one draw, no interval")
    return {
        "draws": int(counted.sum()),
        "auc": area.value,
        "auc_low": area.low,
        "auc_high": area.high,
        "delta_residual": delta.value,
        "delta_low": delta.low,
        "delta_high": delta.high,
        "reason": "; ".join([*reasons, *(["delta_residual: the residual probe itself"] if is_residual else [])]),
    }


def _mean(values: NDArray[np.float64]) -> metrics.Estimate:
    return metrics.mean_interval(values) if len(values) else metrics.Estimate(np.nan, np.nan, np.nan)

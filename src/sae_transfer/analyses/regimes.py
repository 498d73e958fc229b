"""The peers' regimes: few training rows, unbalanced ones, wrong labels; SAE probes against the residual stream probe.

What SAE probes might be good for (arXiv 2502.16681), in domain and out of it, under both rules that rank features:
`auc`, ours, and `mean_difference`, that of sae-probes. Every probe is trained as in the study, C and N chosen by
cross-validation on the altered rows. Test rows and their labels are never altered.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from sae_transfer.analyses.analysis import Analysis
from sae_transfer.core.arrays import Floats, Ints
from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import Names, ParamsSection
from sae_transfer.core.randomness import rng_for
from sae_transfer.core.space import Space
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.probe_params import ProbeParams
from sae_transfer.probing.residual_probes import residual
from sae_transfer.probing.rows import Rows
from sae_transfer.probing.sae_probes import sparse_probes
from sae_transfer.probing.search import Rule
from sae_transfer.results.schema import REASON, Table, estimate, integers, numbers, texts
from sae_transfer.results.sections import Section, Tables, look_up
from sae_transfer.results.transfer_table import TRANSFER
from sae_transfer.stats import intervals, roc
from sae_transfer.stats.intervals import Estimate, reasons

if TYPE_CHECKING:
    from sae_transfer.pipeline.study import Study

TABLE = Table(
    "regimes",
    "one row a (space, A, B, regime, value, probe, ranking)",
    (
        *TRANSFER.pick("space", "layer", "sae", "train", "test", "in_domain"),
        *texts(
            regime="what was altered: size, the number of A's rows, as many of each label; imbalance, the share of "
            "answerable rows, of half of A's rows; noise, the share of each label's rows whose label is flipped"
        ),
        *numbers(value="how far: rows (the largest is all of A's), or a share"),
        *TRANSFER.pick("probe", "ranking", "n_train"),
        *integers(draws="draws of the altered rows that the numbers are means over"),
        *estimate("auc", "mean AUC over the draws, with Student's interval of that mean", heading="AUC"),
        *estimate(
            "delta_residual",
            "mean difference to the residual probe of the same layer on the same draws, with that interval",
            heading="minus residual",
            signed=True,
        ),
        REASON,
    ),
)
Regime = Literal["size", "imbalance", "noise"]
RULES: tuple[Rule, ...] = get_args(Rule)
Altered = tuple[Ints, NDArray[np.int_]]  # which of the rows, and what they are labelled


class RegimeParams(ParamsSection):
    """Section `regimes` of the params; no datasets, no regimes."""

    datasets: Names = ()
    sizes: tuple[PositiveInt, ...] = (16, 32, 64, 128, 256, 512, 1024)
    imbalance: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.05, 0.1, 0.25, 0.5)
    noise: tuple[Annotated[float, Field(ge=0, le=0.5)], ...] = (0.1, 0.2, 0.3)
    draws: int = Field(5, ge=2)


def points(train: Rows, params: RegimeParams) -> Iterator[tuple[Regime, float, int]]:
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


@dataclass(frozen=True)
class Setting:
    """What stays as it is: B's test rows by space and dataset, the seed, and how probes are trained, by space."""

    tests: Mapping[Space, Mapping[str, Rows]]
    seed: int
    probe: Mapping[Space, ProbeParams]


def parts(study: "Study") -> list[str]:
    """A training set and a layer; none unless the params name training sets."""
    return [f"{layer.name}/{dataset}" for dataset in study.params.regimes.datasets for layer in study.layers]


def compute(study: "Study", part: str) -> pd.DataFrame:
    """The rows of one A in a layer's residual stream and in the SAEs on it."""
    name, dataset = part.split("/")
    layer = study.space(name)
    spaces = [layer, *(sae for sae in study.saes if sae.layer == layer.layer)]
    tests = {space: {test: study.rows(space, test, "unseen") for test in study.datasets} for space in spaces}
    probe = {space: study.params.probe.at(space.name, dataset) for space in spaces}
    train = {space: study.rows(space, dataset) for space in spaces}
    return TABLE.frame(regime_rows(dataset, train, Setting(tests, study.seed, probe), study.params.regimes))


def regime_rows(
    dataset: str, train: Mapping[Space, Rows], setting: Setting, regimes: RegimeParams
) -> Iterator[dict[str, Any]]:
    """The table's rows of one A.

    Args:
        dataset: A's name.
        train: A's training rows by space, the layer's residual stream first, then SAEs on that layer.
        setting: what stays as it is.
        regimes: what to alter.
    """
    layer, *_ = train
    for regime, value, draws in points(train[layer], regimes):
        drawing = [rng_for(setting.seed, "regime", dataset, regime, value, draw) for draw in range(draws)]
        chosen = [altered(train[layer].labels, train[layer].groups, regime, value, rng) for rng in drawing]
        areas = {
            key: found for space, own in train.items() for key, found in _areas(space, own, chosen, setting).items()
        }
        for (space, probe, ranking), found in areas.items():
            about = {"space": space.name, "layer": space.layer, "sae": space.sae, "train": dataset}
            altering = {"regime": regime, "value": value, "probe": probe, "ranking": ranking}
            for j, test in enumerate(setting.tests[space]):
                where = {"test": test, "in_domain": test == dataset, "n_train": len(chosen[0][0])}
                compared = None if space.is_residual else areas[layer, "residual", ""][:, j]
                yield about | altering | where | _numbers(found[:, j], compared)


def _areas(
    space: Space, train: Rows, chosen: Sequence[Altered], setting: Setting
) -> dict[tuple[Space, str, str], Floats]:
    """AUC [draws, tests] by space, probe and ranking, NaN where the rows were too few for one."""
    tests = list(setting.tests[space].values())
    kinds = [("residual", "")] if space.is_residual else [(k, r) for r in RULES for k in ("sparse_1", "sparse_n")]
    areas = {(space, *kind): np.full((len(chosen), len(tests)), np.nan) for kind in kinds}
    for draw, (at, labels) in enumerate(chosen):
        try:
            probes = fitted(space, replace(train.take(at), labels=labels), setting.seed, setting.probe[space])
        except UserError:  # too few groups for the folds, or no feature that fires often enough
            continue
        for probe in probes:
            scored = [roc.auc(probe.score(test.X), test.labels) for test in tests]
            areas[space, probe.kind, probe.ranking][draw] = scored
    return areas


def fitted(space: Space, train: Rows, seed: int, params: ProbeParams) -> list[Probe]:
    """The residual probe of a residual stream; of an SAE, the selected 1-sparse and N-sparse probes under each rule.

    Raises:
        UserError: the rows are too few.
    """
    if space.is_residual:
        return residual(train, seed, params)
    by_rule = [
        sparse_probes(train, seed, params.model_copy(update={"ranking": rule, "ranking_n": None})) for rule in RULES
    ]
    return [probe for probes in by_rule for probe in probes if probe.selected]


def _numbers(areas: Floats, residual_areas: Floats | None) -> dict[str, Any]:
    """The columns of one probe's AUC over the draws; `residual_areas` are None for the residual probe itself."""
    counted = ~np.isnan(areas)
    found = int(counted.sum())
    lost = f"{len(areas) - found} of {len(areas)} draws have too few groups or features" if found < len(areas) else ""
    delta = np.empty(0) if residual_areas is None else areas - residual_areas
    why = {
        "auc": lost,
        "auc_low": "one draw" if found == 1 else "",
        "delta_residual": "the residual probe itself" if residual_areas is None else "",
    }
    means = _mean(areas).columns("auc") | _mean(delta).columns("delta_residual")
    return {"draws": found, **means, "reason": reasons(why)}


def _mean(values: Floats) -> Estimate:
    known = values[~np.isnan(values)]
    return intervals.mean_interval(known) if len(known) else Estimate()


def section(tables: Tables) -> Section:
    """What the report says of altered training rows."""
    shown = "space train test regime value probe ranking auc delta_residual".split()
    return Section(
        "regimes",
        "With few, unbalanced or mislabelled training rows",
        "Probes on altered draws of A's training rows; the table has every regime.",
        "Probes trained on altered draws of A's rows; each number is the mean over draws with its interval. SAE probes "
        "stand beside the residual probe on the same draws, under both rules that rank features.",
        TABLE.name,
        tables=[look_up(tables["regimes"], "Every regime", TABLE.pick(*shown))],
        aside=True,
    )


ANALYSIS = Analysis(TABLE, compute, parts, params=("probe", "regimes"), section=section)

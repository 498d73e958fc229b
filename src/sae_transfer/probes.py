"""Probes: how each kind is trained on dataset A. Pure functions on arrays.

A method is a function from training data to a list of probes. `cross_validate` calls the whole method on the other
folds, so that everything it learns (ranking, scaling, C, N) is learnt anew where it is judged.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from scipy import sparse
from scipy.special import expit

from sae_transfer.config import Params, parse
from sae_transfer.logistic import rms_scaled, standardised, unscaled
from sae_transfer.metrics import auc
from sae_transfer.records import UserError, generator
from sae_transfer.search import MIN_ROWS, Ranking, Rule, entries, fit_columns, rank_features
from sae_transfer.splits import folds as make_folds

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Matrix = Any  # [n, d]: a dense array, or a CSR array of SAE features


Scaling = Literal["rms", "standard", "none"]
SCALED = {"rms": rms_scaled, "standard": standardised, "none": unscaled}


class Tunable(Params):
    """What a sweep tunes, and what `probe.<space>.<A>` may override.

    `C` and `N` are grids to choose from by cross-validation. `ranking` orders an SAE's features (sparse_1 and
    sparse_n), `scaling` is what the N-sparse probe's features go through before the penalty.
    """

    C: tuple[PositiveFloat, ...] = Field((0.001, 0.01, 0.1, 1.0, 10.0), min_length=1)
    N: tuple[PositiveInt, ...] = Field((2, 4, 8, 16, 32, 64), min_length=1)
    ranking: Rule = "auc"
    scaling: Scaling = "rms"


class ProbeParams(Tunable):
    """How probes are trained, section `probe` of the params.

    Every other key with a mapping under it is a space, and holds what to override there for a training set:
    `narrow_3: {people: {C: [0.1], N: [8]}}`.
    """

    n_folds: int = 5
    top_k: int = 10
    repeats: int = 20
    matched_n_train: int = 240
    overrides: Mapping[str, Mapping[str, Tunable]] = {}

    @model_validator(mode="before")
    @classmethod
    def _overrides(cls, section: Any) -> Any:
        if not isinstance(section, Mapping):
            return section
        fields = cls.model_fields.keys() - {"overrides"}
        spaces = {name: value for name, value in section.items() if name not in fields and isinstance(value, Mapping)}
        overrides = {
            space: {train: parse(Tunable, value, f"probe.{space}.{train}") for train, value in trains.items()}
            for space, trains in spaces.items()
        }
        return {name: value for name, value in section.items() if name not in spaces} | {"overrides": overrides}

    def at(self, space: str, train: str) -> "ProbeParams":
        """These params with what is overridden for this space and training set."""
        chosen = self.overrides.get(space, {}).get(train, Tunable())
        values = {name: getattr(chosen, name) for name in chosen.model_fields_set}
        return self.model_copy(update=values | {"overrides": {}})


@dataclass(frozen=True)
class Training:
    """Dataset A's training rows in one space: `X` [n, d], `labels` [n] of 0 and 1, `groups` [n] of names."""

    X: Matrix
    labels: NDArray[np.int_]
    groups: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, chosen: NDArray[Any]) -> "Training":
        return Training(self.X[chosen], self.labels[chosen], self.groups[chosen])

    def folded(self, k: int, seed: int) -> Iterator[tuple["Training", "Training"]]:
        """(the other folds, the held-out fold), for each of k stratified folds by group."""
        fold = make_folds(self.labels, list(self.groups), k, seed)
        for held_out in range(k):
            yield self.rows(fold != held_out), self.rows(fold == held_out)


@dataclass(frozen=True)
class Probe:
    """A linear probe: score = X[:, feature_ids] @ weights + bias, probability = sigmoid(slope * score + offset).

    `feature_ids` is None for a probe on every column. Scaling is folded into the weights. `slope` and `offset` are 1
    and 0 where the score is a logit already. `rank` is the place of a 1-sparse probe's feature on A, `repeat` counts
    the repeats of a control, `selected` marks the rank or N that the training data chose. `cv_auc` is the mean
    out-of-fold AUC on A of the whole procedure behind this probe, NaN where it was not run. `reads` names the matrix
    that X is: the space's own rows, the residual stream, an SAE's reconstruction of it, or what a text probe reads. A
    probe with an `encoder` [d_model + 1, k], whose last row is the bias, scores relu(X @ encoder[:-1] + encoder[-1])
    instead of X: the features of a random SAE. `n_components` counts the components of a probe on principal components.
    """

    kind: str
    family: Literal["residual", "sparse_1", "sparse_n", "tfidf", "length", "overlap", "verbal"]
    weights: Floats
    bias: float
    feature_ids: Ints | None = None
    C: float = np.nan
    rank: int = 0
    repeat: int = 0
    selected: bool = True
    scaling: str = "none"
    ranking: str = ""
    slope: float = 1.0
    offset: float = 0.0
    cv_auc: float = np.nan
    n_train: int = 0
    reads: str = "space"
    n_components: int = 0
    encoder: NDArray[np.float32] | None = None

    @property
    def n_features(self) -> int:
        """How many features it uses: 0 for a dense probe, the number of components for one on principal components."""
        return self.n_components if self.feature_ids is None and self.encoder is None else len(self.weights)

    def score(self, X: Matrix) -> Floats:
        """[n] scores of X [n, d]; they rise with answerability."""
        if self.encoder is not None:
            X = np.maximum(np.asarray(X, dtype=np.float64) @ self.encoder[:-1] + self.encoder[-1], 0.0)
        columns = X if self.feature_ids is None else X[:, self.feature_ids]
        return np.asarray(columns @ self.weights, dtype=np.float64) + self.bias

    def probability(self, scores: Floats) -> Floats:
        """[n] probabilities of "answerable" for this probe's scores."""
        result: Floats = expit(self.slope * scores + self.offset)
        return result


Method = Callable[[Training, int], list[Probe]]


def residual(train: Training, seed: int, params: ProbeParams) -> list[Probe]:
    """The residual stream probe: standardised L2 logistic regression, C by cross-validation (ties: the smaller C)."""
    grid = sorted(params.C)
    areas = [
        [auc(linear(test.X, fit), test.labels) for fit in standardised(rest.X, rest.labels, grid)]
        for rest, test in train.folded(params.n_folds, seed)
    ]
    C = grid[int(np.argmax(mean_over_folds(areas)))]
    weights, bias = standardised(train.X, train.labels, [C])[0]
    return [Probe("residual", "residual", weights, bias, C=C, scaling="standard")]


def mean_difference(train: Training, seed: int, params: ProbeParams) -> list[Probe]:
    """The direction from the mean of the unanswerable rows to the mean of the answerable ones.

    Its score is no logit: slope and offset come from a logistic regression of one variable on out-of-fold scores.
    """
    held_out = [
        (linear(test.X, _mean_direction(rest)), test.labels) for rest, test in train.folded(params.n_folds, seed)
    ]
    scores, labels = (np.concatenate(parts) for parts in zip(*held_out, strict=True))
    slope, offset = rms_scaled(scores[:, None], labels, [1.0])[0]
    weights, bias = _mean_direction(train)
    return [Probe("mean_difference", "residual", weights, bias, slope=float(slope[0]), offset=offset)]


def _mean_direction(train: Training) -> tuple[Floats, float]:
    X, positive = np.asarray(train.X, dtype=np.float64), train.labels == 1
    high, low = X[positive].mean(axis=0), X[~positive].mean(axis=0)
    return high - low, float((low - high) @ (high + low) / 2)


def sparse_probes(train: Training, seed: int, params: ProbeParams) -> list[Probe]:
    """The 1-sparse probes of the top K features, and the N-sparse probe for every N of the grid.

    1-sparse: scale and bias of one feature on all training rows, C = 1. N-sparse: L2 logistic regression on the N best
    features; the C of each N, and which N is selected, by cross-validation with the features ranked anew in every
    fold (ties: the smaller N, then the smaller C). Source: arXiv 2502.19964.

    Raises:
        UserError: no feature fires on enough training rows.
    """
    ranking = ranked(train, seed, params)
    if not len(ranking.feature_ids):
        raise UserError(f"no feature fires on {MIN_ROWS} of {len(train)} training rows; is this SAE the model's?")
    best = ranking.feature_ids
    grid, sizes = sorted(params.C), [n for n in sorted(params.N) if n <= len(best)] or [len(best)]
    areas = mean_over_folds(
        [_areas(rest, test, seed, params, sizes, grid) for rest, test in train.folded(params.n_folds, seed)]
    )
    selected = int(np.argmax(areas.max(axis=1)))
    chosen = [grid[int(np.argmax(row))] for row in areas]
    many = [
        sparse_n(train, best[:n], chosen[i], selected=i == selected, ranking=params.ranking, scaling=params.scaling)
        for i, n in enumerate(sizes)
    ]
    return sparse_1(train, best[: params.top_k], params.ranking) + many


def ranked(train: Training, seed: int, params: ProbeParams) -> Ranking:
    """The features of `train` ranked by the params' rule; what it cross-validates, within `train`."""
    X = sparse.csr_array(train.X)
    folds = make_folds(train.labels, list(train.groups), params.n_folds, seed)
    return rank_features(X, train.labels, folds, params.ranking)


def sparse_1(train: Training, feature_ids: Ints, ranking: Rule = "auc") -> list[Probe]:
    """One probe for each of the features, which come from the best to the worst by the rule that ranked them."""
    columns = entries(sparse.csr_array(train.X)[:, feature_ids])
    scale, bias = fit_columns(columns, len(feature_ids), train.labels, np.ones(len(train), dtype=bool))
    return [
        Probe(
            "sparse_1", "sparse_1", scale[[i]], float(bias[i]), feature_ids[[i]], 1.0, i + 1, 0, i == 0, "rms", ranking
        )
        for i in range(len(feature_ids))
    ]


def sparse_n(
    train: Training,
    feature_ids: Ints,
    C: float,
    *,
    selected: bool,
    ranking: Rule = "auc",
    scaling: Scaling = "rms",
) -> Probe:
    """L2 logistic regression on the features; `ranking` is the rule that chose them."""
    weights, bias = SCALED[scaling](_dense(train.X, feature_ids), train.labels, [C])[0]
    return Probe(
        "sparse_n", "sparse_n", weights, bias, feature_ids, C, selected=selected, scaling=scaling, ranking=ranking
    )


def _areas(
    rest: Training, test: Training, seed: int, params: ProbeParams, sizes: list[int], grid: list[float]
) -> list[list[float]]:
    """AUC on `test` for every N and C, features ranked on `rest` alone."""
    best = ranked(rest, seed, params).feature_ids[: max(sizes)]
    X, unseen = _dense(rest.X, best), _dense(test.X, best)
    fit_scaled = SCALED[params.scaling]
    return [
        [auc(linear(unseen[:, :n], fit), test.labels) for fit in fit_scaled(X[:, :n], rest.labels, grid)] for n in sizes
    ]


def mean_over_folds(areas: Any) -> Floats:
    """Means over the first axis, rounded so that the order of a sum's terms never breaks a tie."""
    means: Floats = np.round(np.mean(areas, axis=0, dtype=np.float64), 12)
    return means


def shuffled_residual(train: Training, seed: int, params: ProbeParams, C: float) -> list[Probe]:
    """The negative control: the residual probe at its own C, trained on permuted labels, several times."""
    probes = []
    for repeat in range(params.repeats):
        labels = generator(seed, "shuffled labels", repeat).permutation(train.labels)
        weights, bias = standardised(train.X, labels, [C])[0]
        probes.append(
            Probe(
                "shuffled_labels", "residual", weights, bias, C=C, repeat=repeat, scaling="standard", n_train=len(train)
            )
        )
    return probes


def shuffled_sparse(train: Training, seed: int, params: ProbeParams, n: int, C: float) -> list[Probe]:
    """The negative control, selection included: features ranked and probes of 1 and of n trained on permuted labels."""
    probes = []
    for repeat in range(params.repeats):
        labels = generator(seed, "shuffled labels", repeat).permutation(train.labels)
        shuffled = replace(train, labels=labels)
        best = ranked(shuffled, seed, params).feature_ids
        rules: dict[str, Any] = {"ranking": params.ranking, "scaling": params.scaling}
        pair = [
            sparse_1(shuffled, best[:1], params.ranking)[0],
            sparse_n(shuffled, best[:n], C, selected=True, **rules),
        ]
        probes += [replace(p, kind="shuffled_labels", repeat=repeat, n_train=len(train)) for p in pair]
    return sorted(probes, key=lambda probe: probe.family)


Key = tuple[str, str, int, int]


def cross_validate(method: Method, train: Training, seed: int, params: ProbeParams) -> list[Probe]:
    """The method's probes trained on all of `train`, each with the cv_auc of the procedure behind it.

    The whole method runs again on the other folds of each fold. A probe for a given rank or N is judged by the
    probes of that rank or N; the selected N-sparse probe by those that the folds selected, whatever their N.
    """
    by_key: dict[Key, list[float]] = {}
    for rest, test in train.folded(params.n_folds, seed):
        for probe in method(rest, seed):
            area = auc(probe.score(test.X), test.labels)
            for key in {_key(probe, selected=False), _key(probe, selected=probe.selected)}:
                by_key.setdefault(key, []).append(area)
    return [
        replace(
            probe, n_train=len(train), cv_auc=float(np.mean(by_key.get(_key(probe, selected=probe.selected), [np.nan])))
        )
        for probe in method(train, seed)
    ]


def _key(probe: Probe, *, selected: bool) -> Key:
    return (probe.kind, "selected", 0, 0) if selected else (probe.kind, "", probe.rank, probe.n_features)


def layer_probes(train: Training, seed: int, params: ProbeParams) -> list[Probe]:
    """Every probe of a residual stream space."""
    probes = cross_validate(partial(residual, params=params), train, seed, params)
    probes += cross_validate(partial(mean_difference, params=params), train, seed, params)
    return probes + shuffled_residual(train, seed, params, probes[0].C)


def sae_probes(train: Training, seed: int, params: ProbeParams) -> list[Probe]:
    """Every probe of an SAE's feature space."""
    probes = cross_validate(partial(sparse_probes, params=params), train, seed, params)
    chosen = next(probe for probe in probes if probe.kind == "sparse_n" and probe.selected)
    return probes + shuffled_sparse(train, seed, params, len(chosen.weights), chosen.C)


def linear(X: Matrix, fit: tuple[Floats, float]) -> Floats:
    """[n] scores of X under the (weights, bias) of a fit."""
    weights, bias = fit
    return np.asarray(X @ weights, dtype=np.float64) + bias


def _dense(X: Matrix, feature_ids: Ints) -> NDArray[Any]:
    """[n, k], the columns of those features."""
    chosen: Any = X[:, feature_ids]
    return chosen if isinstance(chosen, np.ndarray) else np.asarray(chosen.toarray())

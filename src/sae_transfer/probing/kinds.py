"""Every kind of probe, in one registry: what it is called, what it is there for, and how it is trained.

A new kind is a file with its training function, and here an entry of `KINDS` and, unless another training makes it,
one of `TRAININGS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from scipy import sparse

from sae_transfer.core.arrays import Ints
from sae_transfer.core.errors import UserError, closest
from sae_transfer.core.space import Space
from sae_transfer.probing import controls, residual_probes, sae_probes
from sae_transfer.probing.cross_validation import cross_validate
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.probe_params import ProbeParams
from sae_transfer.probing.rows import Rows

Role = Literal["probe", "baseline", "control"]
Refit = Callable[[Probe, Rows, Ints, int, ProbeParams], Probe | None]
"""(fitted probe, another sample of A's rows, its ranked features, seed, params) -> the probe trained anew on it."""


@dataclass(frozen=True)
class Kind:
    """One kind of probe: everything that the other parts of the project ask of it.

    `labels` name it for people, by family: a kind with several families (a control of the 1-sparse and of the N-sparse
    probe) is told apart by them. `role` says whether it is a probe, a baseline or a negative control. `refit` trains it
    anew on another training sample; without one it is not resampled. `calibrated` kinds are looked at by the analysis
    of thresholds, `ceiling` kinds stand on B also as trained on B. `repeated` kinds are means over repeats.
    """

    role: Role
    labels: Mapping[str, str]
    colour: str = ""
    refit: Refit | None = None
    calibrated: bool = False
    ceiling: bool = False
    repeated: bool = False


KINDS: dict[str, Kind] = {
    "residual": Kind(
        "probe", {"residual": "residual stream probe"}, "#0072B2", residual_probes.refit_residual, True, True
    ),
    "mean_difference": Kind(
        "probe", {"residual": "difference of means"}, "#56B4E9", residual_probes.refit_mean_difference, True
    ),
    "sparse_1": Kind("probe", {"sparse_1": "1-sparse SAE probe"}, "#D55E00", sae_probes.refit_sparse_1, True, True),
    "sparse_n": Kind("probe", {"sparse_n": "N-sparse SAE probe"}, "#E69F00", sae_probes.refit_sparse_n, True, True),
    "shuffled_labels": Kind(
        "control",
        {
            "residual": "shuffled labels, residual stream",
            "sparse_1": "shuffled labels, 1-sparse",
            "sparse_n": "shuffled labels, N-sparse",
        },
        repeated=True,
    ),
    "other_rule": Kind(
        "baseline",
        {
            "residual": "residual stream probe, chosen by the other rule",
            "sparse_n": "N-sparse SAE probe, chosen by the other rule",
        },
    ),
    "pca": Kind("baseline", {"residual": "principal components"}),
    "reconstruction": Kind("baseline", {"residual": "SAE reconstruction"}),
    "random_features": Kind(
        "baseline", {"sparse_1": "a random SAE feature", "sparse_n": "N random SAE features"}, repeated=True
    ),
    "random_sae": Kind(
        "baseline", {"sparse_1": "random SAE, 1-sparse", "sparse_n": "random SAE, N-sparse"}, repeated=True
    ),
    "text": Kind(
        "baseline",
        {
            "tfidf": "words of the prompt (TF-IDF)",
            "length": "length of the prompt",
            "overlap": "word overlap of question and context",
        },
    ),
    "verbal": Kind("baseline", {"verbal": "the model's own words"}),
    "target_trained": Kind(
        "baseline",
        {
            "residual": "trained on the target, residual stream",
            "sparse_1": "trained on the target, 1-sparse",
            "sparse_n": "trained on the target, N-sparse",
        },
    ),
}


@dataclass(frozen=True)
class Sources:
    """What a probe of dataset A may be trained on.

    `rows` are A's training rows in the space, `stream` the same rows in the residual stream of its layer, `rebuilt` the
    same as the SAE reconstructs them; what needs one that is None is left out. `place` names space and dataset: what is
    random is drawn anew for each.
    """

    rows: Rows
    stream: Rows | None = None
    rebuilt: Rows | None = None
    place: str = ""


Train = Callable[[Sources, Sequence[Probe], int, ProbeParams], list[Probe]]
"""(what to train on, the probes trained before it in this space, seed, params) -> probes."""


def validated(method: Callable[..., list[Probe]]) -> Train:
    """A method on A's rows, with its cross-validation."""

    def train(of: Sources, _fitted: Sequence[Probe], seed: int, params: ProbeParams) -> list[Probe]:
        return cross_validate(partial(method, params=params), of.rows, seed, params)

    return train


def _reconstruction(of: Sources, _fitted: Sequence[Probe], seed: int, params: ProbeParams) -> list[Probe]:
    if of.rebuilt is None:
        return []
    return cross_validate(partial(residual_probes.reconstruction, params=params), of.rebuilt, seed, params)


def _shuffled_residual(of: Sources, fitted: Sequence[Probe], seed: int, params: ProbeParams) -> list[Probe]:
    return residual_probes.shuffled_residual(of.rows, seed, params, selected(fitted, "residual").C, of.place)


def _shuffled_sparse(of: Sources, fitted: Sequence[Probe], seed: int, params: ProbeParams) -> list[Probe]:
    many = selected(fitted, "sparse_n")
    return sae_probes.shuffled_sparse(of.rows, seed, params, many, of.place)


def _random_features(of: Sources, fitted: Sequence[Probe], seed: int, params: ProbeParams) -> list[Probe]:
    one, many = selected(fitted, "sparse_1"), selected(fitted, "sparse_n")
    return controls.random_features(of.rows, one, many, seed, params)


def _random_sae(of: Sources, fitted: Sequence[Probe], seed: int, params: ProbeParams) -> list[Probe]:
    if of.stream is None:
        return []
    return controls.random_sae(of.rows, of.stream, selected(fitted, "sparse_n"), seed, params)


def selected(fitted: Sequence[Probe], kind: str) -> Probe:
    """The probe of a kind that the training data chose."""
    return next(probe for probe in fitted if probe.kind == kind and probe.selected)


METHODS: dict[str, Callable[..., list[Probe]]] = {
    "residual": residual_probes.residual,
    "mean_difference": residual_probes.mean_difference,
    "sparse_1": sae_probes.sparse_probes,
    "sparse_n": sae_probes.sparse_probes,
}
"""How each kind of probe is trained on rows alone."""

TRAININGS: dict[Literal["residual", "sae"], tuple[Train, ...]] = {
    "residual": (
        validated(residual_probes.residual_by_both_rules),
        validated(METHODS["mean_difference"]),
        _shuffled_residual,
        validated(residual_probes.pca),
    ),
    "sae": (
        validated(sae_probes.sparse_by_both_rules),
        _shuffled_sparse,
        _reconstruction,
        _random_features,
        _random_sae,
    ),
}


def fit(space: Space, train: Rows | Sources, seed: int = 0, params: ProbeParams | None = None) -> list[Probe]:
    """Every probe, baseline and control of a space on one training set, in the order of `TRAININGS`.

    Args:
        space: a residual stream, or the features of an SAE.
        train: A's training rows in it, alone or with what some baselines need beside them.
        seed: of folds and of what is drawn at random.
        params: how probes are trained.

    Raises:
        UserError: no feature fires on enough rows, or there are too few groups for the folds.
    """
    of, chosen = train if isinstance(train, Sources) else Sources(train), params or ProbeParams()
    fitted: list[Probe] = []
    for training in TRAININGS["residual" if space.is_residual else "sae"]:
        fitted += training(of, fitted, seed, chosen)
    return fitted


def fit_kinds(chosen: Sequence[str], train: Rows, seed: int = 0, params: ProbeParams | None = None) -> list[Probe]:
    """The probes of some kinds alone, the same as among all that `fit` gives on these rows.

    Args:
        chosen: of `METHODS`.
        train: A's training rows; sparse kinds need columns that are never negative, the others dense rows.
        seed: of the folds.
        params: how probes are trained.

    Raises:
        UserError: an unknown kind (with the closest names), rows of the wrong sort, or as `fit`.
    """
    for kind in chosen:
        if kind not in METHODS:
            raise UserError(f"probe '{kind}' is unknown; {closest(kind, METHODS)}")
        if sparse.issparse(train.X) and METHODS[kind] is not sae_probes.sparse_probes:
            raise UserError(f"the {kind} probe reads dense rows, and X is sparse; give X.toarray()")
    of, trained = Sources(train), list[Probe]()
    for method in dict.fromkeys(METHODS[kind] for kind in chosen):
        trained += validated(method)(of, [], seed, params or ProbeParams())
    return [probe for probe in trained if probe.kind in chosen]


def key(kind: str, family: str) -> str:
    """What tells probes apart in tables: the kind, with its family where the kind has several."""
    return f"{kind}_{family}" if len(KINDS[kind].labels) > 1 else kind


KEYS: dict[str, tuple[str, str]] = {
    key(kind, family): (kind, family) for kind in KINDS for family in KINDS[kind].labels
}


def label(of: str) -> str:
    """What people call the probes of a key."""
    kind, family = KEYS.get(of, ("", ""))
    return KINDS[kind].labels[family] if kind else of.replace("_", " ")


def colour(of: str) -> str:
    """The colour of a key's marks in figures; empty where it has none of its own."""
    return KINDS[KEYS[of][0]].colour if of in KEYS else ""


def role(of: str) -> Role:
    """What a key's, or a kind's, probes are there for."""
    return KINDS[KEYS[of][0] if of in KEYS else of].role


def kinds(*, role: Role | None = None, **flags: bool) -> tuple[str, ...]:
    """The kinds with this role and these flags (`calibrated`, `ceiling`, `repeated`), in order."""
    return tuple(
        name
        for name, kind in KINDS.items()
        if role in (None, kind.role) and all(getattr(kind, flag) == wanted for flag, wanted in flags.items())
    )

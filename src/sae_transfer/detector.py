"""A study's saved probe as a detector of unanswerable questions, on prompts that it never saw."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sae_transfer import activations, config, features, paths, probe_files
from sae_transfer.features import SaeParams
from sae_transfer.models import ModelParams
from sae_transfer.probes import Probe
from sae_transfer.records import UserError, closest
from sae_transfer.stages import inputs

KINDS = ("sparse_1", "sparse_n", "residual", "mean_difference")


@dataclass(frozen=True)
class Fired:
    """An SAE feature of the probe that fired on a prompt, and what it adds to the score (weight times activation)."""

    feature: int
    activation: float
    contribution: float


@dataclass(frozen=True)
class Verdict:
    """What a probe says of one prompt.

    `probability` is that of "answerable", `answerable` whether it reaches 0.5, the threshold that the training data
    set; `fired` are the probe's features that are active, the largest contribution first (none for a residual probe).
    """

    prompt: str
    score: float
    probability: float
    answerable: bool
    fired: tuple[Fired, ...]


def score(
    prompts: Sequence[str],
    space: str,
    train: str,
    kind: str = "sparse_n",
    *,
    rank: int | None = None,
    n_features: int | None = None,
    params: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> list[Verdict]:
    """Applies the probe that `dvc repro` fitted in `space` on dataset `train` to finished prompts.

    The model, the position and the SAE are those of params.yaml, so call it from the project's root.

    Args:
        prompts: finished prompts, as the model shall read them (before any chat template).
        space: `layer_<L>`, or the name of an SAE.
        train: the dataset that the probe was trained on.
        kind: one of `KINDS`.
        rank: of a 1-sparse probe's feature; the best one unless given.
        n_features: of an N-sparse probe; the N that cross-validation chose unless given.
        params: the params, read from params.yaml unless given.
        progress: whether to show a bar on stderr.

    Returns:
        One verdict a prompt, in their order.

    Raises:
        UserError: no such space, dataset, kind or probe; the probe has not been fitted; a prompt is empty or too long.
    """
    params = config.read() if params is None else params
    if kind not in KINDS:
        raise UserError(f"probe '{kind}' is unknown; {closest(kind, KINDS)}")
    layer = inputs.layer_of(space, params)
    probe = _choose(_fitted(space, train, params), kind, rank, n_features, f"{space}, {train}")
    chosen = config.section(params, ModelParams, "model").model_copy(update={"layers": (layer,)})
    model, tokenizer = activations.load_model(chosen)
    X: Any = activations.residual_stream(model, tokenizer, prompts, chosen, progress)[layer]
    if not space.startswith("layer_"):
        pins = Path(params["study"]["saes_identity"])
        sae = features.load_sae(space, config.section(params, SaeParams, "saes", space), pins)
        X = features.encode(sae, space, X).features
    scores = probe.score(X)
    probabilities = probe.probability(scores)
    return [
        Verdict(prompt, float(s), float(p), bool(p >= 0.5), fired)
        for prompt, s, p, fired in zip(prompts, scores, probabilities, _fired(probe, X), strict=True)
    ]


def _fitted(space: str, train: str, params: Mapping[str, Any]) -> list[Probe]:
    """The probes of a space that were trained on all of the dataset's training rows."""
    known = params["study"]["datasets"]
    if train not in known:
        raise UserError(f"dataset '{train}' is not in study.datasets; {closest(train, known)}")
    probes = probe_files.read(Path(paths.PROBES) / space / train)
    largest = max(probe.n_train for probe in probes)
    return [probe for probe in probes if probe.n_train == largest and probe.kind in KINDS]


def _choose(probes: list[Probe], kind: str, rank: int | None, n_features: int | None, where: str) -> Probe:
    there = dict.fromkeys(probe.kind for probe in probes)
    if kind not in there:
        raise UserError(f"{where}: no {kind} probe here, but {' and '.join(there)}; choose one, or another space")
    same = [probe for probe in probes if probe.kind == kind]
    tests: list[tuple[str, int | None, Callable[[Probe], int]]] = [
        ("rank", rank, lambda probe: probe.rank),
        ("N", n_features, lambda probe: 0 if probe.feature_ids is None else len(probe.feature_ids)),
    ]
    for name, wanted, of in tests:
        if wanted is not None and wanted not in (values := sorted({of(probe) for probe in same})):
            raise UserError(f"{where}: no {kind} probe with {name} = {wanted}; there are {', '.join(map(str, values))}")
        same = [probe for probe in same if wanted in (None, of(probe))]
    return next((probe for probe in same if probe.selected), same[0])


def _fired(probe: Probe, X: Any) -> list[tuple[Fired, ...]]:
    """For each row of X, the probe's features that are active."""
    if probe.feature_ids is None:
        return [()] * X.shape[0]
    active = np.asarray(X[:, probe.feature_ids].toarray(), dtype=np.float64)
    return [
        tuple(
            Fired(int(probe.feature_ids[i]), float(row[i]), float(row[i] * probe.weights[i]))
            for i in sorted(np.flatnonzero(row), key=lambda i: (-abs(row[i] * probe.weights[i]), i))
        )
        for row in active
    ]

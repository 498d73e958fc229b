"""A study's saved probe as a detector of unanswerable questions, on prompts that it never saw."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sae_transfer.core.errors import UserError, closest
from sae_transfer.core.space import Space
from sae_transfer.model import encoding, extraction, loading, saes
from sae_transfer.pipeline.study import Study
from sae_transfer.probing.kinds import kinds
from sae_transfer.probing.probe import Probe

KINDS = kinds(role="probe")


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
    study: Study,
    prompts: Sequence[str],
    space: Space,
    train: str,
    kind: str = "sparse_n",
    *,
    rank: int | None = None,
    n_features: int | None = None,
    chat: bool | None = None,
    progress: bool = False,
) -> list[Verdict]:
    """Applies the probe that `dvc repro` fitted in `space` on dataset `train` to finished prompts.

    Args:
        study: whose probe, model and SAE; its position is read.
        prompts: finished prompts, as the model shall read them (before any chat template).
        space: a residual stream, or the features of an SAE.
        train: the dataset that the probe was trained on.
        kind: one of `KINDS`.
        rank: of a 1-sparse probe's feature; the best one unless given.
        n_features: of an N-sparse probe; the N that cross-validation chose unless given.
        chat: whether the prompts go through the model's chat template; as `model.chat_template` says unless given.
        progress: whether to show a bar on stderr.

    Returns:
        One verdict a prompt, in their order.

    Raises:
        UserError: no such dataset, kind or probe; the probe has not been fitted; a prompt is empty or too long.
    """
    if kind not in KINDS:
        raise UserError(f"probe '{kind}' is unknown; {closest(kind, KINDS)}")
    fitted = [probe for probe in study.full_probes(space, study.check_dataset(train)) if probe.kind in KINDS]
    probe = _choose(fitted, kind, rank, n_features, f"{space.name}, {train}")
    layer = int(space.layer or 0)
    chosen = study.params.model.model_copy(update={"layers": (layer,)})
    if chat is not None:
        chosen = chosen.model_copy(update={"chat_template": chat})
    model, tokenizer = loading.load_model(chosen)
    X: Any = extraction.residual_stream(model, tokenizer, prompts, chosen, progress)[layer]
    if space.sae:
        sae = saes.load_sae(space.sae, study.params.saes[space.sae])
        X = encoding.encode(sae, space.sae, X).features
    scores = probe.score(X)
    probabilities = probe.probability(scores)
    return [
        Verdict(prompt, float(s), float(p), bool(p >= 0.5), fired)
        for prompt, s, p, fired in zip(prompts, scores, probabilities, _fired(probe, X), strict=True)
    ]


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

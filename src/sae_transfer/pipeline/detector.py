"""A study's saved probe as a detector of unanswerable questions, on prompts that it never saw."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sae_transfer.core.errors import UserError
from sae_transfer.core.space import Space
from sae_transfer.data.prompt_templates import find
from sae_transfer.model import encoding, extraction, loading, saes
from sae_transfer.pipeline.study import Study
from sae_transfer.probing.probe import Probe


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


class Detector:
    r"""A saved probe on new prompts. It loads model and SAE when it is first called, and keeps them.

    >>> detector = Detector(study, "passages", "residual")
    >>> (verdict,) = detector(["Passage: Ben likes tea.\nQuestion: What does Ben like?\nAnswer:"])
    >>> verdict.answerable == (verdict.probability >= 0.5)
    True
    """

    def __init__(
        self,
        study: Study,
        train: str,
        kind: str = "sparse_n",
        space: Space | str | None = None,
        *,
        rank: int | None = None,
        n: int | None = None,
        chat: bool | None = None,
    ) -> None:
        """Takes the probe that `dvc repro` fitted.

        Args:
            study: whose probe, model and SAE.
            train: the dataset that the probe was trained on.
            kind: `sparse_1`, `sparse_n`, `residual` or `mean_difference`.
            space: an SAE or a residual stream; by default the study's first SAE, or for a dense kind its last layer.
            rank: of a 1-sparse probe's feature; the best one unless given.
            n: the number of features of an N-sparse probe; the one that cross-validation chose unless given.
            chat: whether prompts go through the model's chat template; by default as the training set's own do.

        Raises:
            UserError: as `Study.probe`.
        """
        self.study = study
        first = (study.saes or study.layers)[0] if "sparse" in kind else study.layers[-1]
        self.space = first if space is None else study.space(space)
        self.probe = study.probe(self.space, study.check_dataset(train), kind, rank=rank, n=n)
        self._layer = int(self.space.layer or 0)
        own = find(study.params.datasets[train].template).chat
        chosen = study.params.model.chat_template if own is None else own
        self._params = study.model.model_copy(
            update={"layers": (self._layer,), "chat_template": chosen if chat is None else chat}
        )

    def __call__(self, prompts: Sequence[str], *, progress: bool = False) -> list[Verdict]:
        """One verdict a prompt, in their order; `pandas.DataFrame` makes a table of them.

        Args:
            prompts: finished prompts, as the model shall read them (before any chat template).
            progress: whether to show a bar on stderr.

        Raises:
            UserError: a prompt is empty or too long; model or SAE cannot be loaded.
        """
        if isinstance(prompts, str):
            raise UserError("a single text in place of prompts; give a list of texts")
        model, tokenizer = self._model
        X: Any = extraction.residual_stream(model, tokenizer, prompts, self._params, progress)[self._layer]
        if self.space.sae:
            X = encoding.encode(self._sae, self.space.sae, X).features
        scores = self.probe.score(X)
        probabilities = self.probe.probability(scores)
        return [
            Verdict(prompt, float(s), float(p), bool(p >= 0.5), fired)
            for prompt, s, p, fired in zip(prompts, scores, probabilities, _fired(self.probe, X), strict=True)
        ]

    @cached_property
    def _model(self) -> Any:
        return loading.load_model(self._params)

    @cached_property
    def _sae(self) -> Any:
        return saes.load_sae(self.space.sae, self.study.sae(self.space))


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

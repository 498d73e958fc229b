"""What the words alone give away: probes on the text of the prompts, with no model. Pure functions on lists of texts.

The only home of scikit-learn in the package, imported inside functions since it takes a second.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sae_transfer.core.arrays import Floats, Matrix
from sae_transfer.probing.cross_validation import choose, cross_validate, score_logits
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.probe_params import ProbeParams
from sae_transfer.probing.residual_probes import residual
from sae_transfer.probing.rows import Rows

WORD = re.compile(r"\w+")
TextRows = dict[str, NDArray[Any]]  # what each family reads: `tfidf` prompts [n], `length` [n, 2], `overlap` [n, 1]


@dataclass(frozen=True)
class TextProbe(Probe):
    """A probe on prompts [n]: its `vectorizer` turns them into the columns that the weights are for."""

    vectorizer: Any = None

    def score(self, X: Matrix) -> Floats:
        return super().score(self.vectorizer.transform(X))


def text_rows(prompts: Sequence[str], contexts: Sequence[str], questions: Sequence[str]) -> TextRows:
    """What the text probes read of n prompts.

    `length`: the number of words of the context and of the question. `overlap`: the share of the question's different
    words that the context has too, 0 for a question without words.
    """
    words = [[_words(text) for text in texts] for texts in (contexts, questions)]
    shares = [len(set(asked) & set(given)) / max(len(set(asked)), 1) for given, asked in zip(*words, strict=True)]
    return {
        "tfidf": np.asarray(prompts, dtype=object),
        "length": np.array([[len(text) for text in texts] for texts in words], dtype=np.float64).T,
        "overlap": np.array(shares, dtype=np.float64)[:, None],
    }


def _words(text: str) -> list[str]:
    return WORD.findall(text.casefold())


def text_probes(
    rows: TextRows, labels: NDArray[np.int_], groups: NDArray[np.str_], seed: int, params: ProbeParams
) -> list[Probe]:
    """The three text probes, each with its C by cross-validation as the residual probe's: TF-IDF, length, overlap."""
    probes = cross_validate(partial(tfidf, params=params), Rows(rows["tfidf"], labels, groups), seed, params)
    families: tuple[Literal["length", "overlap"], ...] = ("length", "overlap")
    for family in families:
        train = Rows(rows[family], labels, groups)
        found = cross_validate(partial(residual, params=params), train, seed, params)
        probes += [replace(probe, kind="text", family=family, input=family) for probe in found]
    return probes


def tfidf(train: Rows, seed: int, params: ProbeParams) -> list[Probe]:
    """L2 logistic regression on scikit-learn's TF-IDF of single words; vocabulary and weights of words from `train`."""
    grid = sorted(params.C_grid)
    folds = []
    for rest, test in train.folded(params.n_folds, seed):
        vectorizer, X = _vectorized(rest.X)
        unseen = vectorizer.transform(test.X)
        fits = (_logistic(X, rest.labels, C) for C in grid)
        folds.append(score_logits([[unseen @ weights + bias for weights, bias in fits]], test))
    choice = choose(folds, grid, params.selection)
    vectorizer, X = _vectorized(train.X)
    weights, bias = _logistic(X, train.labels, choice.C)
    about = {"C": choice.C, "scaling": "tf-idf", "input": "tfidf", "vectorizer": vectorizer, **choice.about}
    return [TextProbe("text", "tfidf", weights, bias, **about)]


def _vectorized(texts: NDArray[Any]) -> tuple[Any, sparse.csr_array]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]")  # names of variables and signs are words too
    return vectorizer, sparse.csr_array(vectorizer.fit_transform(texts))


def _logistic(X: sparse.csr_array, labels: NDArray[np.int_], C: float) -> tuple[Floats, float]:
    from sklearn.linear_model import LogisticRegression

    fit = LogisticRegression(C=C, tol=1e-6, max_iter=10_000).fit(X, labels)
    return np.asarray(fit.coef_[0], dtype=np.float64), float(fit.intercept_[0])

"""Cues: what tells a label, or a dataset, by the form of its rows alone, without a model. A probe has to beat them.

Pure functions on texts and labels. `check` and `data check` warn by them; `cue_table` belongs beside the headline.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2_contingency

from sae_transfer.data.splits import WORDS
from sae_transfer.stats.roc import auc

WORD, LAST = re.compile(r"\w+"), re.compile(r"(\w+|[^\w\s])(\s*)$")
TELLS = 0.7  # an AUC from which a cue is worth a warning, whichever way it points
DIFFERS, SURE = 0.1, 1e-3  # the least distance between the forms of labels that is told, and how unlikely by chance
APART = 0.5  # the least distance between the forms of datasets that is told
NONE = "no context"
COMMON = 0.02  # an ending that fewer rows have is one of many


def word_overlap(contexts: Sequence[str], questions: Sequence[str]) -> NDArray[np.float64]:
    """[n], the share of each question's different words that its context has too, 0 for a question without words."""
    words = [[set(WORD.findall(text.casefold())) for text in texts] for texts in (contexts, questions)]
    return np.array([len(asked & given) / max(len(asked), 1) for given, asked in zip(*words, strict=True)])


def _length(contexts: Sequence[str], questions: Sequence[str]) -> NDArray[np.float64]:
    """[n], the number of words of each row."""
    texts = zip(contexts, questions, strict=True)
    return np.array([len(WORD.findall(f"{context} {question}")) for context, question in texts], dtype=np.float64)


CUES: dict[str, Callable[[Sequence[str], Sequence[str]], NDArray[np.float64]]] = {
    "word overlap of question and context": word_overlap,
    "number of words": _length,
}


def cue_table(rows: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What each cue alone reaches on each dataset: no model, no training, so the same from whatever domain it comes.

    Args:
        rows: by dataset, the rows to test on: columns `context`, `question`, `label` [n].

    Returns:
        Columns dataset, cue, auc (of label 1 by a larger value of the cue; below 0.5 where it points the other way), n.
    """
    found = [
        (name, cue, auc(of(list(table["context"]), list(table["question"])), table["label"]), len(table))
        for name, table in rows.items()
        for cue, of in CUES.items()
    ]
    return pd.DataFrame(found, columns=["dataset", "cue", "auc", "n"])


def ending(prompt: str) -> str:
    """The last word or sign of a prompt, with the white space behind it: near to what is read at its last token."""
    found = LAST.search(prompt)
    return "" if found is None else found[1] + found[2]


def distance(one: Sequence[str], other: Sequence[str]) -> float:
    """How far two samples of forms are apart, 0 to 1: the total variation distance of their shares."""
    a, b = Counter(one), Counter(other)
    return sum(abs(a[form] / len(one) - b[form] / len(other)) for form in a | b) / 2


def label_forms(forms: Sequence[str], labels: ArrayLike) -> float:
    """How far the forms of the two labels are apart, as `distance`; 0 where chance alone explains it.

    Rare forms count as one: prompts that end in words of their own are not apart for that.
    """
    y, frequent = np.asarray(labels), Counter(forms)
    known = np.array([form if frequent[form] >= COMMON * len(forms) else "" for form in forms])
    counts = pd.crosstab(known, y).to_numpy()
    if min(counts.shape) < 2 or chi2_contingency(counts).pvalue > SURE:
        return 0.0
    return distance(list(known[y == 0]), list(known[y == 1]))


def warnings(rows: Mapping[str, pd.DataFrame]) -> list[str]:
    """What of these datasets can be told by a cue, in sentences.

    Args:
        rows: by dataset, the rows to test on: columns `context`, `question`, `label`, `prompt` [n], and `ends`,
            their last tokens, where a tokenizer is at hand (else their last word or sign stands for it).
    """
    ends = {name: list(of["ends"] if "ends" in of else map(ending, of["prompt"])) for name, of in rows.items()}
    told = []
    for name, table in rows.items():
        labels, bare = table["label"].to_numpy(), [NONE if not context.strip() else "" for context in table["context"]]
        if label_forms(ends[name], labels) >= DIFFERS:
            told.append(f"{name}: how prompts end tells the label: {_most_apart(ends[name], labels)}")
        if label_forms(bare, labels) >= DIFFERS:
            told.append(f"{name}: whether a row has a context tells the label: {_most_apart(bare, labels)}")
    return told + _apart(ends) + _telling(cue_table(rows))


def _most_apart(forms: Sequence[str], labels: NDArray[np.int_]) -> str:
    """The form whose shares of the two labels differ most."""
    by = {label: [form for form, of in zip(forms, labels, strict=True) if of == label] for label in WORDS}
    shares = {form: [of.count(form) / len(of) for of in by.values()] for form in set(forms) - {""}}
    form = max(sorted(shares), key=lambda form: abs(shares[form][0] - shares[form][1]))
    told = " and ".join(f"{share:.0%} of {word}" for share, word in zip(shares[form], WORDS.values(), strict=True))
    return f"{form!r} in {told} rows"


def _usual(forms: Sequence[str]) -> str:
    form, n = Counter(forms).most_common(1)[0]
    return f"{form!r} in {n / len(forms):.0%}"


def _apart(ends: Mapping[str, Sequence[str]]) -> list[str]:
    """Datasets whose prompts end otherwise than those of most."""
    if len(ends) < 2:
        return []
    usual = {name: Counter(forms).most_common(1)[0][0] for name, forms in ends.items()}
    common = Counter(usual.values()).most_common(1)[0][0]
    base = next(name for name in ends if usual[name] == common)
    return [
        f"{name}: its prompts end otherwise than those of {base} ({_usual(forms)} against {_usual(ends[base])}): "
        "a feature at the last token may fire in one of them alone"
        for name, forms in ends.items()
        if name != base and distance(forms, ends[base]) >= APART
    ]


def _telling(table: pd.DataFrame) -> list[str]:
    told = []
    for cue, of in table.groupby("cue", sort=False):
        chance = 3 * np.sqrt((of["n"] + 1) / (3 * of["n"] ** 2))  # standard errors of what tells nothing, half and half
        strong = of[(of["auc"] - 0.5).abs() >= np.maximum(TELLS - 0.5, chance)]
        if len(strong):
            each = ", ".join(f"{row.dataset} {row.auc:.2f}" for row in strong.itertuples())
            told.append(
                f"{cue}: this alone, without a model, tells the label: AUC {each} (mean of all datasets "
                f"{of['auc'].mean():.2f}); a probe has to beat it"
            )
    return told

"""The answer of a study in a few sentences: the report's first screen, `sae-transfer summary`, results/verdict.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd

from sae_transfer.results import cells, headline
from sae_transfer.results.sections import Tables
from sae_transfer.results.warnings import EQUAL, Notice

Answer = Literal["Yes", "Partly", "No", "Undecided", "Not tested"]
SHOWN = 3  # warnings
DEMO = "models/demo"
Row = Mapping[Any, Any]


@dataclass(frozen=True)
class Verdict:
    """What a study answers.

    `sentence` holds the answer with the numbers that it rests on, `sentences` what else a reader asks first,
    `numbers_of` whose numbers these are, and `warnings` every warning, the worst first.
    """

    answer: Answer
    sentence: str
    sentences: Sequence[str]
    numbers_of: str
    demo: bool
    warnings: Sequence[Notice]

    @property
    def shown(self) -> list[str]:
        """The warnings that matter, without the notes, and how many more there are."""
        said = [notice.sentence for notice in self.warnings if notice.severity != "note"][:SHOWN]
        more = len(self.warnings) - len(said)
        return [*said, *([f"{more} more in results/warnings.csv."] if more else [])]

    @property
    def lines(self) -> list[str]:
        """At most 9 lines of text."""
        said = [f"! {sentence}" for sentence in self.shown]
        return [f"{self.answer}. {self.sentence}", *self.sentences, self.numbers_of, *said]

    def as_json(self) -> dict[str, Any]:
        """What results/verdict.json holds."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "Verdict":
        """The verdict that `as_json` gave.

        Raises:
            TypeError: it has other names.
            KeyError: it lacks its warnings.
        """
        return cls(**{**told, "warnings": [Notice(**notice) for notice in told["warnings"]]})


def verdict(tables: Tables, warnings: Sequence[Notice]) -> Verdict:
    """The verdict of a study's tables `headline` and `transfer`, and of its warnings."""
    table, transfer = tables["headline"], tables["transfer"]
    one, many, residual = (headline.of_all(table, key) for key in ("sparse_1", "sparse_n", "residual"))
    demo = str(transfer["model"].iloc[0]).startswith(DEMO) if len(transfer) else False
    return Verdict(
        answer=answer(one),
        sentence=_sentence(one, residual),
        sentences=[*_against_residual(one, many), *_beyond(one, cells.datasets(transfer))],
        numbers_of=_numbers_of(transfer, demo),
        demo=demo,
        warnings=warnings,
    )


def answer(row: Row | None) -> Answer:
    """Whether what a probe reads in domain holds out of domain.

    Yes: the interval of the loss lies above -0.02. Partly: it lies below, and out of domain the AUC lies above 0.52.
    No: out of domain the interval of the AUC lies below 0.52. Undecided: the intervals reach across these bounds.
    """
    if row is None or pd.isna(row["auc_ood"]) or pd.isna(row["auc_in_domain"]):
        return "Not tested"
    if row["auc_ood_high"] < 0.5 + EQUAL:
        return "No"
    above_chance = row["auc_ood_low"] > 0.5 + EQUAL
    if above_chance and row["auc_lost_low"] > -EQUAL:
        return "Yes"
    return "Partly" if above_chance and row["auc_lost_high"] < -EQUAL else "Undecided"


def against(row: Row) -> str:
    """How a probe stands to the residual probe out of domain, in words."""
    low, high = row["delta_residual_low"], row["delta_residual_high"]
    if low > EQUAL:
        return "better than"
    if high < -EQUAL:
        return "worse than"
    return "as good as" if low > -EQUAL and high < EQUAL else "not surely better or worse than"


def _sentence(one: Row | None, residual: Row | None) -> str:
    if one is None:
        return "The study has no SAE, or no feature of it could be ranked."
    here = f"The SAE feature that is best on one dataset has AUC {_estimate(one, 'auc_in_domain')} there"
    if pd.isna(one["auc_ood"]):
        return f"{here}; no other dataset was tested."
    told = f"{here} and {_estimate(one, 'auc_ood')} on the others"
    if not pd.isna(one["auc_ood_general_low"]):
        low, high = (cells.number(one[f"auc_ood_general_{end}"]) for end in ("low", "high"))
        told += f" ({low} to {high} over datasets like them)"
    return f"{told}, where the residual stream probe has {_estimate(residual, 'auc_ood')}." if residual else f"{told}."


def _against_residual(one: Row | None, many: Row | None) -> list[str]:
    """The differences to the residual probe, out of domain."""
    told: list[str] = []
    for row, name in ((one, "the single feature"), (many, "a probe on N features")):
        if row is not None and not pd.isna(row["delta_residual"]):
            own = "" if row is one else f" has AUC {_estimate(row, 'auc_ood')} and"
            told.append(
                f"Out of domain, {name}{own} is {against(row)} the residual stream probe: "
                f"{_estimate(row, 'delta_residual', True)}; it wins {row['won']} and loses {row['lost']} of "
                f"{row['cells_compared']} cells."
            )
    return told


def _beyond(one: Row | None, datasets: Sequence[str]) -> list[str]:
    if one is None or pd.isna(one["auc_ood_general_low"]):
        return []
    worst = f"{cells.number(one['auc_ood_worst'])} ({one['worst_train']} to {one['worst_test']}, {one['worst_space']})"
    return [f"The worst pair has {worst}. All other intervals are for these {len(datasets)} datasets alone."]


def _numbers_of(transfer: pd.DataFrame, demo: bool) -> str:
    model = str(transfer["model"].iloc[0]) if len(transfer) else "no model"
    saes, datasets = [name for name in transfer["sae"].unique() if name], cells.datasets(transfer)
    size = f"{_count(len(saes), 'SAE')}, {_count(len(datasets), 'dataset')}"
    if demo:
        return f"Demo numbers: a tiny model of a made-up world, {size}. They say nothing about other models."
    return f"Numbers of {model}, {size}."


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _estimate(row: Row, name: str, signed: bool = False) -> str:
    """0.66 (0.64 to 0.68); the value alone where there is no interval."""
    value, low, high = (cells.number(row[name + end], signed=signed) for end in ("", "_low", "_high"))
    return f"{value} (no interval)" if pd.isna(row[f"{name}_low"]) else f"{value} ({low} to {high})"

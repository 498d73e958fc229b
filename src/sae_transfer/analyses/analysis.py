"""What an analysis is: a table that is computed of a finished study, part by part."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from sae_transfer.results.schema import Table
from sae_transfer.results.sections import Section, Tables

if TYPE_CHECKING:
    from sae_transfer.pipeline.study import Study

Parts = Callable[["Study"], Sequence[str]]


def whole(_study: "Study") -> Sequence[str]:
    """An analysis that is computed at once."""
    return ("all",)


def by_space(study: "Study") -> Sequence[str]:
    """An analysis that looks at each space alone: the residual streams, then the SAEs."""
    return [space.name for space in study.spaces]


def by_sae(study: "Study") -> Sequence[str]:
    """An analysis that looks at each SAE alone."""
    return [space.name for space in study.saes]


@dataclass(frozen=True)
class Analysis:
    """One analysis.

    `compute(study, part)` gives the rows of one part as a table with the columns of `table`; parts are computed in
    parallel, and the table is their rows one below the other. `after` names analyses whose tables it reads (with
    `study.analysis(name, part)`). `params` are the sections of params.yaml that decide its numbers, besides the seed.
    An analysis that is not `published` is read by others alone and writes no table into results/.
    `section(tables)` is what the report says of it, given all tables that have rows; None where another one tells it.
    """

    table: Table
    compute: Callable[["Study", str], pd.DataFrame]
    parts: Parts = whole
    after: tuple[str, ...] = ()
    params: tuple[str, ...] = ("probe", "transfer")
    published: bool = True
    section: Callable[[Tables], Section] | None = None

    @property
    def name(self) -> str:
        return self.table.name

"""What a sweep may choose: the ranges of the section `sweep` of params.yaml, and one point of them."""

from dataclasses import dataclass
from typing import Literal

from pydantic import PositiveFloat, PositiveInt, model_validator

from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import ParamsSection
from sae_transfer.probing.probe_params import ProbeParams
from sae_transfer.probing.search import Rule
from sae_transfer.stats.logistic import Scaling


class SweepParams(ParamsSection):
    """Section `sweep` of the params: where to look for better probes, how long, and where to remember it.

    `mode` best: the best objective with at most `n_max` features; pareto: the objective against N, the whole front.
    `C_range` is searched on a log scale. `grid`: first try every C x N of the section `probe`. `storage`: a folder for
    journals, or any URL that Optuna takes.
    """

    mode: Literal["best", "pareto"] = "best"
    n_max: PositiveInt = 64
    trials: PositiveInt = 100
    C_range: tuple[PositiveFloat, PositiveFloat] = (1e-4, 100.0)
    ranking: tuple[Rule, ...] = ("auc", "mean_difference")
    scaling: tuple[Scaling, ...] = ("rms", "standard", "none")
    grid: bool = False
    storage: str = "studies"

    @model_validator(mode="after")
    def _ranges(self) -> "SweepParams":
        low, high = self.C_range
        if low > high:
            raise ValueError(f"C_range runs from the smaller to the larger, not {low:g} to {high:g}")
        if not self.ranking or not self.scaling:
            raise ValueError("ranking and scaling each need a choice at least")
        return self

    def grid_points(self, probe: ProbeParams, n_max: int) -> "list[Choice]":
        """The grid of the section `probe` that is tried first; empty unless `grid` asks for it."""
        sizes = sorted(n for n in probe.N if n <= n_max) if self.grid else []
        return [Choice(C, n, probe.ranking, probe.scaling) for n in sizes for C in sorted(probe.C_grid)]

    def check_grid(self, probe: ProbeParams) -> None:
        """Refuses a grid that does not fit.

        Raises:
            UserError: a point of the grid lies outside the search space, or it has more points than there are trials.
        """
        if not self.grid:
            return
        low, high = self.C_range
        for C in probe.C_grid:
            if not low <= C <= high:
                raise UserError(f"sweep.C_range = [{low:g}, {high:g}] leaves out {C:g} of probe.C_grid; widen it")
        for name in ("ranking", "scaling"):
            if getattr(probe, name) not in getattr(self, name):
                raise UserError(f"sweep.{name} lacks the grid's {getattr(probe, name)}; add it")
        points = len(self.grid_points(probe, self.n_max))
        if points > self.trials:
            raise UserError(f"sweep.trials = {self.trials}, but the grid has {points} points; raise it")


@dataclass(frozen=True)
class Choice:
    """One point of the search space: what a trial tries."""

    C: float
    N: int
    ranking: Rule
    scaling: Scaling

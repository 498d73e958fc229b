"""How probes are trained: section `probe` of the params."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from sae_transfer.core.params_section import ParamsSection, parse
from sae_transfer.probing.search import Rule
from sae_transfer.stats.logistic import Scaling

SelectionRule = Literal["log_loss", "auc"]


class Tunable(ParamsSection):
    """What a sweep tunes, and what `probe.<space>.<A>` may override.

    `C_grid` and `N` are grids to choose from by cross-validation. `ranking` orders an SAE's features (sparse_1 and
    sparse_n), `scaling` is what the N-sparse probe's features go through before the penalty.
    """

    C_grid: tuple[PositiveFloat, ...] = Field((0.001, 0.01, 0.1, 1.0, 10.0), min_length=1)
    N: tuple[PositiveInt, ...] = Field((2, 4, 8, 16, 32, 64), min_length=1)
    ranking: Rule = "auc"
    scaling: Scaling = "rms"


class ProbeParams(Tunable):
    """How probes are trained, section `probe` of the params.

    Every other key with a mapping under it is a space, and holds what to override there for a training set:
    `narrow_3: {people: {C_grid: [0.1], N: [8]}}`. `selection` is the rule that chooses C, N and the number of
    components on A's training rows, out of fold.
    """

    selection: SelectionRule = "log_loss"
    n_folds: int = 5
    top_k: int = 10
    repeats: int = 20
    matched_n_train: int = 240
    ranking_n: Rule | None = None  # of the N-sparse probe alone, where it is another; overrides set it
    overrides: Mapping[str, Mapping[str, Tunable]] = {}

    @model_validator(mode="before")
    @classmethod
    def _overrides(cls, section: Any) -> Any:
        if not isinstance(section, Mapping):
            return section
        fields = cls.model_fields.keys() - {"overrides"}
        spaces = {name: value for name, value in section.items() if name not in fields and isinstance(value, Mapping)}
        overrides = {
            str(space): {str(train): parse(Tunable, value, f"probe.{space}.{train}") for train, value in trains.items()}
            for space, trains in spaces.items()
        }
        return {name: value for name, value in section.items() if name not in spaces} | {"overrides": overrides}

    @property
    def other_selection(self) -> SelectionRule:
        """The rule that did not choose; results show what it would have chosen."""
        return "auc" if self.selection == "log_loss" else "log_loss"

    @property
    def rule_n(self) -> Rule:
        """The rule that ranks features for the N-sparse probe."""
        return self.ranking_n or self.ranking

    def at(self, space: str, train: str) -> "ProbeParams":
        """These params with what is overridden for this space and training set."""
        chosen = self.overrides.get(space, {}).get(train, Tunable())
        values = {name: getattr(chosen, name) for name in chosen.model_fields_set}
        if "ranking" in values:  # tuned for the N-sparse probe: the 1-sparse one keeps the study's rule
            values["ranking_n"] = values.pop("ranking")
        return self.model_copy(update=values | {"overrides": {}})

"""The params of the analyses of which features generalise: candidates, oracle gap, predictors and policies."""

from typing import Annotated

from pydantic import Field

from sae_transfer.core.params_section import ParamsSection


class GeneralizationParams(ParamsSection):
    """Section `generalization` of the params."""

    few_labels: tuple[Annotated[int, Field(ge=2, multiple_of=2)], ...] = (16, 64)  # of B's training rows
    draws: int = Field(10, ge=1)  # of each number of labels
    good_auc: float = Field(0.8, gt=0.5, le=1)  # what counts as a good feature

"""Where probes live: the residual stream after a layer, the features of an SAE on a layer, or the text alone."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Space:
    """A space, as a typed object. No code parses its name.

    `layer` is None where a space has none (`TEXT`, `VERBAL`); `sae` names the SAE of a feature space and is empty
    elsewhere.
    """

    name: str
    layer: int | None = None
    sae: str = ""

    @property
    def is_residual(self) -> bool:
        """Whether its rows are the residual stream itself."""
        return self.layer is not None and not self.sae


def residual_stream(layer: int) -> Space:
    """The residual stream after a layer."""
    return Space(f"layer_{layer}", layer)


def sae_features(sae: str, layer: int) -> Space:
    """The features of an SAE that reads the residual stream after a layer."""
    return Space(sae, layer, sae)


TEXT = Space("text")  # the words of the prompts
VERBAL = Space("verbal")  # the model's own judgement

"""Results projected into MLflow. The only home of mlflow, which is imported inside functions: it takes seconds.

`results/` is the truth; MLflow is read only to see what is there already. `contents`, `models` and `tables` say what
each run holds and `view` what the pages show (pure functions), `projection` brings the store to it, `store` talks to
MLflow through its public client.
"""

from sae_transfer.core.params_section import ParamsSection


class TrackingParams(ParamsSection):
    """Section `tracking` of the params. Without a `uri`, runs go to mlruns/ in the project's root."""

    uri: str | None = None
    experiment: str = "sae-transfer"

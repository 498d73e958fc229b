"""Results projected into MLflow. The only home of mlflow, which is imported inside functions: it takes seconds.

`results/` is the truth; MLflow is read only to see what is there already. `contents` says what each run holds, `plan`
compares that with the store (pure functions), `projection` carries it out, `client` and `bulk` talk to MLflow.
"""

from sae_transfer.config import Params


class TrackingParams(Params):
    """Section `tracking` of the params. Without a `uri`, runs go to mlruns/ in the project's root."""

    uri: str | None = None
    experiment: str = "sae-transfer"

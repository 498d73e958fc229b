"""The view that the experiment ships: the transfer table with the columns that matter.

MLflow keeps shared views in tags of the experiment, in a format of its own that may change with its version: where it
does not know the view, it shows its default one.
"""

import json

VIEW = "transfer-table"
TITLE = "Transfer table"
COLUMNS = (
    "params.`space`",
    "params.`probe`",
    "params.`train`",
    "params.`test`",
    "tags.`domain`",
    "metrics.`auc`",
    "metrics.`auc_low`",
    "metrics.`auc_high`",
    "metrics.`delta_residual`",
    "metrics.`delta_low`",
    "metrics.`delta_high`",
    "params.`n_features`",
    "params.`C`",
    "tags.`top_features`",
    "tags.`study`",
)
FILTER = 'tags.kind = "cell" and tags.role = "probe" and tags.superseded = "no"'
NOTE = """Probes trained on dataset A, tested on dataset B: one run a (space, A, B, probe) below one parent run a study.
AUC is of answerable against unanswerable questions; `auc_low` and `auc_high` bound its 95% interval over test groups.
`delta_residual` is the paired difference to the residual stream probe of the same layer and A.
Listed are the runs with `tags.role = "probe"`; ask for `"baseline"` or `"control"` in their place to see those.
Runs with `superseded = yes` are what results said earlier. `tags.kind = "sweep"` and `"trial"` are Optuna's."""


def tags() -> dict[str, str]:
    """The experiment's tags."""
    state = {
        "searchFilter": FILTER,
        "orderByKey": "tags.`mlflow.runName`",  # by time, it would fold the cells under their parent
        "orderByAsc": True,
        "selectedColumns": list(COLUMNS),
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
    }
    shared = {"name": TITLE, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)}
    return {
        f"mlflow.sharedViewState.{VIEW}": json.dumps(shared),
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.note.content": NOTE,
    }


def link(server: str, experiment: str) -> str:
    where = f"experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}"
    return f"{server.rstrip('/')}/#/{where}"

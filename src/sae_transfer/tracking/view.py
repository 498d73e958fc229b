"""The view that the experiment ships: one row a (space, A, B), with the columns that matter.

MLflow keeps shared views in tags of the experiment, in a format of its own that may change with its version: where it
does not know the view, it shows its default one.
"""

import json

VIEW = "transfer-table"
TITLE = "Transfer table"
COLUMNS = (
    *(f"params.`{name}`" for name in ("space", "train", "test")),
    "tags.`domain`",
    *(f"metrics.`sparse_1.{name}`" for name in ("auc", "auc_low", "auc_high")),
    *(f"metrics.`{name}`" for name in ("sparse_n.auc", "residual.auc", "sparse_1.delta_residual")),
    "tags.`sparse_1.features`",
)
FILTER = 'tags.kind = "cell" and tags.superseded = "no"'
NOTE = """One run for each (space, A, B): every probe that was trained on A in this space, tested on B. `sparse_1.auc`
is the AUC of the 1-sparse SAE probe, answerable against unanswerable; `sparse_1.auc_low` and `sparse_1.auc_high` bound
its 95% interval. `sparse_1.delta_residual` is its paired difference to the residual stream probe of the same layer.

- Trained on passages, tested on people: `params.train = "passages" and params.test = "people"`
- Good ones alone: add ``metrics.`sparse_1.auc` > 0.8``
- Probes that read feature 17: ``tags.`sparse_n.features` LIKE "% 17 %"``
- One study of several: `tags.study = "workspace"`, or the name of a DVC experiment

`superseded = yes` marks what results said earlier. `tags.kind = "sweep"` and `"trial"` are Optuna's."""


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

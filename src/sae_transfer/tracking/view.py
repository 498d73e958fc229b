"""What the experiment ships: a note, and views of its runs that fit 1,440 pixels.

MLflow keeps shared views in tags of the experiment, in a format of its own that may change with its version: where it
does not know a view, it shows its default one.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from sae_transfer.tracking.contents import Content

IMAGES = "images/"
ROOM = 860  # pixels beside MLflow's own columns
RUN_NAME, CREATED = "attributes.`Run Name`", "runDateAndNestInfo"
CELLS = {  # columns of the transfer table, with their widths in pixels
    "metrics.`sparse_1.auc`": 101,
    "metrics.`sparse_1.auc_low`": 127,
    "metrics.`sparse_1.auc_high`": 129,
    "metrics.`sparse_n.auc`": 101,
    "metrics.`residual.auc`": 99,
    "metrics.`sparse_1.delta_residual`": 158,
    "tags.`sparse_1.features`": 130,
}
SWEEPS = {
    "metrics.`cv_log_loss`": 105,
    "metrics.`untuned.cv_log_loss`": 158,
    "metrics.`auc_in_domain`": 122,
    "metrics.`untuned.auc_in_domain`": 175,
    "metrics.`auc_ood`": 95,
    "metrics.`untuned.auc_ood`": 135,
    "metrics.`ties`": 60,
}
CHARTS = (  # x and y of the points of every SAE and out-of-domain (A, B)
    ("residual.auc", "sparse_1.auc"),
    ("residual.auc", "sparse_n.auc"),
    ("sparse_1.cv_auc", "sparse_1.auc"),
    ("sparse_1.ceiling_auc", "sparse_1.auc"),
)
NOTE = """One run for each (space, A, B): every probe that was trained on A in this space, tested on B.

`sparse_1.auc` is the AUC of the 1-sparse SAE probe, answerable against unanswerable; `sparse_1.auc_low` and
`sparse_1.auc_high` bound its 95% interval. `sparse_1.delta_residual` is its paired difference to the residual stream
probe of the same layer. `sparse_1.ceiling_gap` is by how much a 1-sparse probe trained on B does better.

| to find | filter |
|---|---|
| trained on passages, tested on people | `params.train = "passages" and params.test = "people"` |
| the good ones of them | add ``and metrics.`sparse_1.auc` > 0.8`` |
| a 1-sparse probe that reads feature 17 | ``tags.`sparse_1.features` = "17"`` |
| N-sparse probes that read feature 17 | ``tags.`sparse_n.features` LIKE "% 17 %"`` |
| a DVC experiment | `tags.study = "its name"` |

Views (button at the top right): Transfer table, Charts, Studies, Sweeps. The page Models has train x test.
`superseded = yes` marks what results said earlier."""
TABLE_VIEW, CHARTS_VIEW = "transfer-table", "charts"


def tags(study: str, parent: Content, cells: Sequence[Content]) -> dict[str, str]:
    """The experiment's tags: its note and the views of this study."""
    mine = f'tags.study = "{study}" and tags.superseded = "no"'
    roles = {cell.tags["role"] for cell in cells}
    role = next((role for role in ("sae", "residual") if role in roles), "baseline")
    headline = _headline(parent.metrics)
    named = [name.removeprefix(IMAGES).split("+")[0] for name in parent.files if name.startswith(IMAGES)]
    pictures = list(dict.fromkeys(named))
    by_name, kept = "tags.`mlflow.runName`", 'and tags.superseded = "no"'
    charted = f'{mine} and tags.charts = "yes"'
    views = {
        TABLE_VIEW: _view("Transfer table", f'{mine} and tags.role = "{role}"', CELLS, "params.`in_domain`"),
        CHARTS_VIEW: _view("Charts", charted, CELLS, "params.`model.name`", _charts(pictures)),
        "studies": _view("Studies", f'tags.kind = "study" {kept}', headline, by_name),
        "sweeps": _view("Sweeps", f'tags.kind = "sweep" {kept}', SWEEPS, by_name),
    }
    return {
        **{f"mlflow.sharedViewState.{name}": text for name, text in views.items()},
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.note.content": NOTE,
    }


def _headline(names: Iterable[str]) -> dict[str, int]:
    """As many of the parent's numbers as fit, those out of domain first and bounds of intervals last."""
    order = sorted(names, key=lambda name: (not name.startswith("out_of_domain"), name.endswith(("_low", "_high"))))
    widths = {f"metrics.`{name}`": 26 + 7 * len(name) for name in order}
    ends = accumulate(widths.values())
    return {name: width for (name, width), end in zip(widths.items(), ends, strict=True) if end <= ROOM}


def picture(name: str, png: bytes) -> dict[str, bytes]:
    """The two artifacts, large and small, that MLflow's charts take a picture from."""
    place = f"{IMAGES}{name}+step+0+timestamp+0+0"
    return {f"{place}.png": png, f"{place}+compressed.png": png}


def _view(
    title: str, search: str, columns: Mapping[str, int], order_by: str, charts: Mapping[str, Any] | None = None
) -> str:
    """A view as MLflow keeps it. Any order but by time, or MLflow would fold runs under their parent."""
    state = {
        "searchFilter": search,
        "orderByKey": order_by,
        "orderByAsc": True,
        "selectedColumns": list(columns),
        "columnOrder": ["1", RUN_NAME, CREATED, *columns],
        "columnWidths": {"1": 50, RUN_NAME: 238, CREATED: 40, **columns},
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        **(charts or {}),
    }
    return json.dumps({"name": title, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)})


def _charts(pictures: Sequence[str]) -> dict[str, Any]:
    """The page of charts: heatmaps, then scatter plots; what MLflow draws by itself lies in a folded section."""
    shown = [_card("heatmaps", "IMAGE", name, imageKeys=[name], step=0, showRunParams=False) for name in pictures]
    scatter = [_card("probes", "SCATTER", f"{y} against {x}", xaxis=_axis(x), yaxis=_axis(y)) for x, y in CHARTS]
    return {
        "compareRunCharts": shown + scatter,
        "compareRunSections": [
            _section("heatmaps", "AUC, A down, B across", columns=2, cardHeight=640),
            _section("probes", "SAE probes out of domain, one point an (SAE, A, B)", columns=2, cardHeight=420),
            _section("rest", "Model metrics", display=False, isGenerated=True),
        ],
        "isAccordionReordered": True,
        "runsHiddenMode": "SHOW_ALL",
        "runListHidden": True,
        "autoRefreshEnabled": False,
    }


def _card(section: str, kind: str, title: str, **more: Any) -> dict[str, Any]:
    told = {"uuid": title, "type": kind, "metricSectionId": section, "displayName": title, "runsCountToCompare": 100}
    return told | {"deleted": False, "isGenerated": False, **more}


def _axis(metric: str) -> dict[str, str]:
    return {"key": metric, "type": "METRIC"}


def _section(uuid: str, name: str, **more: Any) -> dict[str, Any]:
    told = {"uuid": uuid, "name": name, "display": True, "isReordered": True, "deleted": False, "isGenerated": False}
    return told | more


def link(server: str, experiment: str, name: str = TABLE_VIEW) -> str:
    mode = "&compareRunsMode=CHART" if name == CHARTS_VIEW else ""
    where = f"experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={name}{mode}"
    return f"{server.rstrip('/')}/#/{where}"

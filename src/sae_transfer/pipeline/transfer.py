"""transfer: every probe on every dataset's test rows -> artifacts/transfer/<space>/<A>.{rows,scores}.parquet."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_transfer.core import files, hashing, items, paths
from sae_transfer.core.arrays import Matrix
from sae_transfer.core.items import Item
from sae_transfer.core.space import TEXT, VERBAL, Space, residual_stream
from sae_transfer.data.overlap import overlapping
from sae_transfer.pipeline import stage
from sae_transfer.pipeline.fit import CODE as FIT_CODE
from sae_transfer.pipeline.fit import rows_made
from sae_transfer.pipeline.study import Split, Study
from sae_transfer.probing import scoring, text_probes
from sae_transfer.probing.evaluations import BootstrappedAUC, Evaluation, bootstrapped_auc
from sae_transfer.probing.kinds import kinds
from sae_transfer.probing.probe import Probe
from sae_transfer.results.transfer_table import SCORE_COLUMNS, TRANSFER

CODE = (*FIT_CODE, "results/schema.py", "results/transfer_table.py", "pipeline/transfer.py")


def run(study: Study) -> None:
    """Tests the probes of every space and training set."""
    folder, made = study.path(paths.TRANSFER), rows_made(study)
    probes = items.made(study.path(paths.PROBES))
    shared = {
        "seed": study.seed,
        "transfer": study.params.transfer.model_dump(mode="json"),
        "model": study.params.model.name,
    }
    wanted, probe = [], study.params.probe
    for space in study.spaces:
        layer = residual_stream(int(space.layer or 0))
        fitted = {of: probes[of] for name in study.datasets for of in (f"{space.name}/{name}", f"{layer.name}/{name}")}
        inputs = {**shared, "probes": fitted, "rows": [made(space, name) for name in study.datasets]}
        wanted += [Item(f"{space.name}/{name}", (study, space, name), inputs) for name in study.datasets]
    words = {**shared, "probe": probe.model_dump(mode="json", exclude={"overrides"}), "prompts": made.prompts}
    wanted += [Item(f"{TEXT.name}/{name}", (study, TEXT, name), words) for name in study.datasets]
    judged = items.made(study.path(paths.VERBAL))
    wanted += [
        Item(
            f"{VERBAL.name}/{name}", (study, VERBAL, name), {**shared, "verbal": judged[name], "prompts": made.prompts}
        )
        for name in study.datasets
        if name in judged
    ]
    items.run(folder, wanted, items.each(transfer_item), hashing.code(*CODE), jobs=stage.jobs(study.params.jobs))


def transfer_item(study: Study, space: Space, train: str) -> list[Path]:
    """Writes the rows of the transfer table and the scores of all probes of one space that were trained on A."""
    sources: dict[Space, type[_Text] | type[_Verbal]] = {TEXT: _Text, VERBAL: _Verbal}
    tested = sources.get(space, _Fitted)(study, space, train)
    rows: list[dict[str, Any]] = []
    scores: list[pd.DataFrame] = []
    for test in study.datasets:
        for where in conditions(study, train, test):
            for probes, matrices, residual in tested.on(where):
                found = scoring.evaluated(probes, matrices, where.rows, residual)
                rows += [{**_about(study, space), **where.columns, **row} for row in found]
                scores.append(_scores([p for p in probes if p.kind not in kinds(repeated=True)], matrices, where))
    stem = study.path(paths.TRANSFER) / space.name
    made = [stem / f"{train}.rows.parquet", stem / f"{train}.scores.parquet"]
    files.write_table(made[0], TRANSFER.frame(rows).astype({"layer": "Int64"}))
    empty = pd.DataFrame(columns=SCORE_COLUMNS)
    files.write_table(made[1], pd.concat(scores, ignore_index=True) if scores else empty)
    return made


@dataclass(frozen=True)
class Condition:
    """Rows of B to test on: where they stand in B's prompt table, the prompts, and the rows as probes are evaluated.

    `columns` are those of the transfer table that say what was trained on and tested on.
    """

    test: str
    at: np.ndarray
    prompts: pd.DataFrame
    rows: Evaluation
    columns: Mapping[str, Any]


def conditions(study: Study, train: str, test: str) -> Iterator[Condition]:
    """B's test split under every template and, where params say so, all of B's rows where B is not A.

    Rows that stand among A's training rows are left out.
    """
    seen = study.prompts(train).iloc[study.at(train)]
    wanted = [("test", template) for template in study.templates(test)]
    if study.params.transfer.whole and test != train:
        wanted.append(("whole", study.templates(test)[0]))
    for name, template in wanted:
        split: Split | None = "test" if name == "test" else None
        at, rows = study.at(test, split, template), study.evaluation(test, split, template)
        shared = overlapping(study.prompts(test).iloc[at], seen)
        at, rows = at[~shared], rows.take(~shared)
        columns = {
            "train": train,
            "test": test,
            "in_domain": train == test,
            "train_variation": study.templates(train)[0],
            "test_variation": template,
            "condition": name,
            "n_test": len(at),
            "n_overlap": int(shared.sum()),
            "n_groups": rows.n_groups,
        }
        yield Condition(test, at, study.prompts(test).iloc[at], rows, columns)


def _about(study: Study, space: Space) -> dict[str, Any]:
    layer = pd.NA if space.layer is None else space.layer
    return {"model": study.params.model.name, "layer": layer, "space": space.name, "sae": space.sae}


Tested = tuple[Sequence[Probe], Mapping[str, Matrix], BootstrappedAUC | None]


class _Fitted:
    """Saved probes: by size, with the residual probe of the same size, and B's own as the ceiling."""

    def __init__(self, study: Study, space: Space, train: str) -> None:
        self.study, self.space = study, space
        self.layer = residual_stream(int(space.layer or 0))
        self.by_size = _by_size(study.probes(space, train))
        self.residual = {p.n_train: p for p in study.probes(self.layer, train) if p.kind == "residual"}

    def on(self, where: Condition) -> Iterator[Tested]:
        stream = self.study.matrix(self.layer, where.test)[where.at]
        matrices: dict[str, Matrix] = {"space": self.study.matrix(self.space, where.test)[where.at], "residual": stream}
        if self.space.sae:
            matrices["reconstruction"] = self.study.reconstruction(self.space, where.test, where.at)
        for size, probes in self.by_size.items():
            against = bootstrapped_auc(self.residual[size].score(stream), where.rows)
            ceiling: list[Probe] = []
            if where.columns["condition"] == "test":  # all of B's rows would hold those that the ceiling is trained on
                of_target = _by_size(self.study.probes(self.space, where.test))
                ceiling = scoring.target_trained(of_target, size, sorted(self.by_size))
            yield [*probes, *ceiling], matrices, against


class _Text:
    """Probes on the words of the prompts, which are trained here: nothing else reads them.

    Datasets of activations without prompts have none, and are none to test on.
    """

    def __init__(self, study: Study, _space: Space, train: str) -> None:
        self.study, at = study, study.at(train)
        rows = study.labelled(at, train, at)
        sizes = study.sizes(rows.labels) if study.params.datasets[train].has_prompts else ()
        self.by_size = {
            len(size): text_probes.text_probes(
                {name: X[at][size] for name, X in self._read(train).items()},
                rows.labels[size],
                rows.groups[size],
                study.seed,
                study.params.probe,
            )
            for size in sizes
        }

    def _read(self, dataset: str) -> text_probes.TextRows:
        table = self.study.prompts(dataset)
        return text_probes.text_rows(*(list(table[part]) for part in ("prompt", "context", "question")))

    def on(self, where: Condition) -> Iterator[Tested]:
        if not self.study.params.datasets[where.test].has_prompts:
            return
        matrices = {name: X[where.at] for name, X in self._read(where.test).items()}
        for probes in self.by_size.values():
            yield probes, matrices, None


class _Verbal:
    """The model's own judgement. It trains nothing: its rows have train = test and n_train = 0."""

    PROBE = Probe("verbal", "verbal", np.ones(1), 0.0)

    def __init__(self, study: Study, _space: Space, train: str) -> None:
        self.train = train
        found = files.read_table(study.path(paths.VERBAL) / f"{train}.parquet")
        self.odds = found.set_index(["variation", "id"])["log_odds"]

    def on(self, where: Condition) -> Iterator[Tested]:
        if where.test == self.train and where.columns["condition"] == "test":
            odds = self.odds.loc[where.columns["test_variation"]].loc[where.prompts["id"]].to_numpy()
            yield [self.PROBE], {"space": odds[:, None]}, None


def _by_size(probes: Sequence[Probe]) -> dict[int, list[Probe]]:
    return {size: [p for p in probes if p.n_train == size] for size in dict.fromkeys(p.n_train for p in probes)}


def _scores(probes: Sequence[Probe], matrices: Mapping[str, Matrix], where: Condition) -> pd.DataFrame:
    """One row a (probe, test row), probe after probe."""
    about = pd.DataFrame(
        {
            "n_train": [probe.n_train for probe in probes],
            "probe": [probe.kind for probe in probes],
            "family": [probe.family for probe in probes],
            "rank": [probe.rank for probe in probes],
            "n_features": [probe.n_features for probe in probes],
            "selected": [probe.selected for probe in probes],
        }
    )
    prompts = where.prompts[["id", "group", "label"]].reset_index(drop=True)
    made = about.loc[about.index.repeat(len(prompts))].reset_index(drop=True)
    made = made.join(pd.concat([prompts] * len(probes), ignore_index=True))
    scores = [probe.score(matrices[probe.input]) for probe in probes]
    columns = {name: where.columns[name] for name in ("train", "test", "test_variation", "condition")}
    return made.assign(
        **columns,
        score=np.concatenate(scores),
        probability=np.concatenate([probe.probability(s) for probe, s in zip(probes, scores, strict=True)]),
    )[SCORE_COLUMNS]

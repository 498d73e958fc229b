"""A study: its params, its spaces and datasets, and everything that can be read of it, finished or running.

Reading needs no model, no SAE and no GPU: only the files that the stages wrote.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd

from sae_transfer.artifacts import activations, features, resamples
from sae_transfer.artifacts.features import Decoder, Directions, Health, RowNorms
from sae_transfer.artifacts.resamples import Resampled
from sae_transfer.core import files, paths
from sae_transfer.core.arrays import Matrix
from sae_transfer.core.errors import UserError, closest
from sae_transfer.core.params_section import PARAMS_FILE
from sae_transfer.core.space import TEXT, VERBAL, Space, residual_stream
from sae_transfer.data.overlap import contents
from sae_transfer.data.splits import subset
from sae_transfer.pipeline.params import Params
from sae_transfer.probing import probe_files
from sae_transfer.probing.evaluations import Evaluation, evaluation_of
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.rows import Rows
from sae_transfer.results import result_tables
from sae_transfer.results.transfer_table import SCORE_COLUMNS
from sae_transfer.results.verdict import Verdict

Split = Literal["train", "test", "unseen"]  # unseen: the test rows that stand in no training set of the study
T = TypeVar("T")


@dataclass(frozen=True)
class Study:
    """A study in a folder: `params` are its params.yaml, `root` the folder."""

    params: Params
    root: Path = field(default_factory=Path)

    @classmethod
    def open(cls, root: Path | str = ".") -> "Study":
        """The study of a project's folder.

        Raises:
            UserError: its params.yaml is missing or wrong.
        """
        return cls(Params.read(Path(root) / PARAMS_FILE), Path(root))

    @property
    def seed(self) -> int:
        return self.params.seed

    @property
    def datasets(self) -> tuple[str, ...]:
        """The datasets in the order of the params; each takes the role of A and of B."""
        return self.params.study.datasets

    @property
    def layers(self) -> tuple[Space, ...]:
        """The residual streams."""
        return self.params.layers

    @property
    def saes(self) -> tuple[Space, ...]:
        """The feature spaces."""
        return self.params.sae_spaces

    @property
    def spaces(self) -> tuple[Space, ...]:
        """Every space whose probes are fitted and saved: the residual streams, then the SAEs."""
        return (*self.layers, *self.saes)

    @property
    def all_spaces(self) -> tuple[Space, ...]:
        """Every space of the transfer table: also the text, and the model's own judgement."""
        return (*self.spaces, TEXT, VERBAL)

    def space(self, name: str) -> Space:
        """The space of this name: `layer_<L>`, or an SAE's.

        Raises:
            UserError: there is none (with the closest names).
        """
        known = {space.name: space for space in self.spaces}
        if name not in known:
            raise UserError(f"space '{name}' is unknown; {closest(name, known)}")
        return known[name]

    def check_dataset(self, name: str) -> str:
        """The name, if the study has this dataset.

        Raises:
            UserError: it does not (with the closest names).
        """
        if name not in self.datasets:
            raise UserError(f"dataset '{name}' is not in study.datasets; {closest(name, self.datasets)}")
        return name

    def path(self, place: Path) -> Path:
        """A place of `core.paths` in this study's folder."""
        return self.root / place

    def prompts(self, dataset: str) -> pd.DataFrame:
        """One row a prompt: id, group, split, variation (its template), label, prompt, context, question, and more.

        The dataset's own template comes first. Activations and features have the same rows in the same order.
        """
        return _cached(files.read_table, self.path(paths.PROMPTS) / f"{dataset}.parquet")

    def templates(self, dataset: str) -> list[str]:
        """The prompt templates of a dataset, its own first."""
        return list(self.prompts(dataset)["variation"].unique())

    def at(self, dataset: str, split: Split | None = "train", *templates: str) -> np.ndarray:
        """Where the rows of a split (None: of both) stand in the prompt table, by default under its own template."""
        table = self.prompts(dataset)
        wanted = table["variation"].isin(templates or table["variation"].iloc[:1])
        if split is not None:
            wanted &= table["split"] == ("train" if split == "train" else "test")
        at = np.flatnonzero(wanted)
        if split == "unseen":
            at = at[[content not in self._trained_on for content in contents(table.iloc[at])]]
        return at

    @cached_property
    def _trained_on(self) -> frozenset[tuple[str, str]]:
        trained = (self.prompts(name).iloc[self.at(name)] for name in self.datasets)
        return frozenset(content for rows in trained for content in contents(rows))

    def shards(self, dataset: str) -> list[slice]:
        """The rows of the prompt table that are extracted together."""
        n, size = len(self.prompts(dataset)), self.params.model.shard_rows
        return [slice(start, min(start + size, n)) for start in range(0, n, size)]

    def activations(self, layer: int, dataset: str) -> np.ndarray:
        """The residual stream after a layer [n, d_model] float32, a row a prompt of the dataset's prompt table.

        Raises:
            UserError: missing, damaged, or made for other prompts.
        """
        ids = prompt_ids(self.prompts(dataset))
        folder = self.path(paths.ACTIVATIONS) / residual_stream(layer).name
        parts = [
            _cached(partial(activations.read, ids=ids[rows]), folder / f"{dataset}.{i}.safetensors")
            for i, rows in enumerate(self.shards(dataset))
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def about_activations(self, dataset: str, shard: int = 0) -> dict[str, Any]:
        """What identifies the activations of a dataset's shard: model, weights, dtype, tokens and so on."""
        folder = self.path(paths.ACTIVATIONS) / self.layers[0].name
        return activations.read_about(folder / f"{dataset}.{shard}.safetensors")

    def matrix(self, space: Space, dataset: str) -> Matrix:
        """All of a dataset's rows in a space: residual streams [n, d_model], or features [n, d_sae] as CSR.

        Raises:
            UserError: missing, damaged, or made for other prompts.
        """
        if space.is_residual:
            return self.activations(int(space.layer or 0), dataset)
        return self._features(space, dataset)[0]

    def _features(self, space: Space, dataset: str) -> tuple[Any, RowNorms | None]:
        path = self.path(paths.FEATURES) / space.sae / f"{dataset}.safetensors"
        found, norms = _cached(features.read, path)
        if found.shape[0] != len(self.prompts(dataset)):
            raise UserError(f"{path}: made for other prompts; run `dvc repro`")
        return found, norms

    def reconstruction(self, space: Space, dataset: str, at: np.ndarray) -> np.ndarray:
        """What an SAE makes of the residual stream, at some rows of the prompt table: [len(at), d_model]."""
        found, norms = self._features(space, dataset)
        return self.decoder(space).reconstruct(found[at], None if norms is None else norms.take(at))

    def health(self, space: Space, dataset: str) -> Health:
        """How well an SAE fits a dataset's activations."""
        return features.read_health(self.path(paths.FEATURES) / space.sae / f"{dataset}.safetensors")

    def directions(self, space: Space) -> Directions:
        """Where the features of an SAE lie that fire often enough to be ranked on some dataset."""
        return self._directions(space)[0]

    def decoder(self, space: Space) -> Decoder:
        """What turns the SAE's features into its reconstruction of the residual stream."""
        return self._directions(space)[1]

    def _directions(self, space: Space) -> tuple[Directions, Decoder]:
        return _cached(features.read_directions, self.path(paths.FEATURES) / f"{space.sae}.directions.safetensors")

    def rows(self, space: Space, dataset: str, split: Split = "train", *templates: str) -> Rows:
        """The labelled rows of a split in a space, by default under the dataset's own template."""
        at = self.at(dataset, split, *templates)
        return self.labelled(self.matrix(space, dataset)[at], dataset, at)

    def labelled(self, X: Matrix, dataset: str, at: np.ndarray) -> Rows:
        """Rows X [len(at), d] with the labels, groups and ids of the prompts at these places."""
        table = self.prompts(dataset).iloc[at]
        labels, groups, ids = (table[name].to_numpy() for name in ("label", "group", "id"))
        return Rows(X, labels, groups.astype(str), ids.astype(str))

    def evaluation(self, dataset: str, split: Split | None = "test", template: str | None = None) -> Evaluation:
        """B's rows of a split (None: all of its rows) as every probe is evaluated on them, with their bootstrap."""
        at = self.at(dataset, split, *([] if template is None else [template]))
        table = self.prompts(dataset).iloc[at]
        labels, groups = table["label"].to_numpy(), table["group"].to_numpy().astype(str)
        return evaluation_of(labels, groups, dataset, self.seed, self.params.transfer)

    def sizes(self, labels: np.ndarray) -> list[np.ndarray]:
        """The training rows at each size that is trained on: all, and the matched number where there are more."""
        found, matched = [np.arange(len(labels))], self.params.probe.matched_n_train
        if matched < len(labels):
            found.append(subset(labels, matched))
        return found

    def probes(self, space: Space, dataset: str) -> list[Probe]:
        """Every saved probe that was trained on a dataset in a space, at every size.

        Raises:
            UserError: it has not been fitted, or its file is damaged.
        """
        return _cached(probe_files.read, self.path(paths.PROBES) / space.name / f"{dataset}.safetensors")

    def full_probes(self, space: Space, dataset: str) -> list[Probe]:
        """The probes that were trained on all of A's training rows, without those at the matched size."""
        found = self.probes(space, dataset)
        largest = max(probe.n_train for probe in found)
        return [probe for probe in found if probe.n_train == largest]

    def scores(self, space: Space) -> pd.DataFrame:
        """The scores of every saved probe of a space on every test row, one row a (probe, test row)."""
        folder = self.path(paths.TRANSFER) / space.name
        if space == VERBAL and not folder.exists():  # `verbal.abstaining` is empty
            return pd.DataFrame(columns=SCORE_COLUMNS)
        parts = [files.read_table(folder / f"{dataset}.scores.parquet") for dataset in self.datasets]
        return pd.concat(parts, ignore_index=True)

    def resamples(self, space: Space, dataset: str) -> Resampled:
        """The probes and rankings of every bootstrap sample of A's training groups."""
        return _cached(resamples.read, self.path(paths.RESAMPLES) / space.name / f"{dataset}.safetensors")

    def analysis(self, name: str, part: str) -> pd.DataFrame:
        """What an analysis computed for one part, in full precision."""
        return _cached(files.read_table, self.path(paths.ANALYSES) / name / f"{part}.parquet")

    def results(self, table: str) -> pd.DataFrame:
        """A table of results/, with typed columns.

        Raises:
            UserError: missing or damaged.
        """
        from sae_transfer.analyses.analysis_registry import TABLES  # every analysis, which few readers need

        if table not in TABLES:
            raise UserError(f"table '{table}' is unknown; {closest(table, TABLES)}")
        return result_tables.read(self.path(paths.RESULTS) / f"{table}.csv", TABLES[table])

    def verdict(self) -> Verdict:
        """The answer of the finished study, with every warning.

        Raises:
            UserError: `dvc repro` has not made it, or it is damaged.
        """
        path = self.path(paths.RESULTS) / "verdict.json"
        try:
            return Verdict.from_json(files.read_json(path))
        except (KeyError, TypeError) as error:
            raise files.damaged(path, error) from None


def prompt_ids(table: pd.DataFrame) -> list[str]:
    """What binds activations to the rows of a prompt table: template and id of each."""
    return list(table["variation"] + "/" + table["id"])


def _cached(read: Callable[[Path], T], path: Path) -> T:
    """What was read from a file, kept as long as the file stays as it is and others do not need the room."""
    stamp, place = path.stat().st_mtime_ns if path.exists() else 0, path.absolute()
    kept = _KEPT.get(place)
    if kept is None or kept[0] != stamp:
        while len(_KEPT) >= MOST_KEPT:
            _KEPT.pop(next(iter(_KEPT)))
        kept = _KEPT[place] = (stamp, read(path))
    found: T = kept[1]
    return found


MOST_KEPT = 64  # files
_KEPT: dict[Path, tuple[int, Any]] = {}

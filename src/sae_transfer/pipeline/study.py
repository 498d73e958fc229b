"""A study: its params, its spaces and datasets, and everything that can be read of it, finished or running.

Reading needs no model, no SAE and no GPU: only the files that the stages wrote.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

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
from sae_transfer.data.loaders.loader_registry import DatasetParams
from sae_transfer.data.overlap import contents
from sae_transfer.data.splits import subset
from sae_transfer.model.model_params import ModelParams, SaeParams
from sae_transfer.pipeline.params import Params
from sae_transfer.probing import probe_files
from sae_transfer.probing.evaluations import Evaluation, evaluation_of
from sae_transfer.probing.kinds import kinds
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.rows import Rows
from sae_transfer.results import cells, result_tables
from sae_transfer.results.transfer_table import SCORE_COLUMNS
from sae_transfer.results.verdict import Verdict

if TYPE_CHECKING:
    from sae_transfer.report.figures.picture import Picture

PROBES = kinds(role="probe")
Split = Literal["train", "test", "unseen"]  # unseen: the test rows that stand in no training set of the study
T = TypeVar("T")


@dataclass(frozen=True)
class Study:
    """A study in a folder: `params` are its params.yaml, `root` the folder."""

    params: Params
    root: Path = field(default_factory=Path)

    @classmethod
    def open(cls, root: Path | str | None = None) -> "Study":
        """The study of a project's folder, from wherever Python runs; by default of the working directory.

        Raises:
            UserError: its params.yaml is missing or wrong.

        >>> study = Study.open(folder)
        >>> study.datasets[0], study.space("narrow_3")
        ('passages', Space(name='narrow_3', layer=3, sae='narrow_3'))
        """
        # commands run in the folder: there paths stay short in messages
        return cls(Params.read(Path(root or "") / PARAMS_FILE), Path() if root is None else Path(root).absolute())

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

    def space(self, name: Space | str) -> Space:
        """The space of this name: `layer_<L>`, or an SAE's. A space stays what it is.

        Raises:
            UserError: there is none (with the closest names).
        """
        if isinstance(name, Space):
            return name
        known = {space.name: space for space in self.spaces}
        if name not in known:
            raise UserError(f"space '{name}' is unknown; {closest(name, known)}")
        return known[name]

    def sae_space(self, name: Space | str) -> Space:
        """The feature space of this name. Raises as `space`, and for a space that has no features."""
        space = self.space(name)
        if not space.sae:
            raise UserError(f"{space.name} has no features; {closest(space.name, [sae.name for sae in self.saes])}")
        return space

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

    @property
    def model(self) -> ModelParams:
        """Section `model` of the params, its paths in this study's folder."""
        model = self.params.model
        folder = self.path(Path(model.name))
        return model.of_study(self.root, name=str(folder) if folder.is_dir() else model.name)

    def sae(self, space: Space) -> SaeParams:
        """The section of an SAE, its path in this study's folder."""
        sae = self.params.saes[space.sae]
        return sae.of_study(self.root, path=None if sae.path is None else self.path(sae.path))

    def dataset(self, name: str) -> DatasetParams:
        """The section of a dataset, the path of its rows in this study's folder."""
        dataset = self.params.datasets[name]
        return dataset.model_copy(update={"path": self.path(dataset.path)})

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

    def rows(self, space: Space | str, dataset: str, split: Split = "train", *templates: str) -> Rows:
        """The labelled rows of a split in a space, by default under the dataset's own template.

        Raises:
            UserError: no such space or dataset; or its files are missing, damaged, or made for other prompts.

        >>> rows = study.rows("narrow_3", "passages", "test")
        >>> rows.X.shape == (len(rows), 512), rows.labels.mean()
        (True, np.float64(0.5))
        """
        at = self.at(self.check_dataset(dataset), split, *templates)
        return self.labelled(self.matrix(self.space(space), dataset)[at], dataset, at)

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

    def probes(self, space: Space | str, dataset: str) -> list[Probe]:
        """Every saved probe that was trained on a dataset in a space, at every size.

        Raises:
            UserError: it has not been fitted, or its file is damaged.
        """
        folder = self.path(paths.PROBES) / self.space(space).name
        return _cached(probe_files.read, folder / f"{self.check_dataset(dataset)}.safetensors")

    def full_probes(self, space: Space | str, dataset: str) -> list[Probe]:
        """The probes that were trained on all of A's training rows, without those at the matched size."""
        found = self.probes(space, dataset)
        largest = max(probe.n_train for probe in found)
        return [probe for probe in found if probe.n_train == largest]

    def probe(
        self, space: Space | str, dataset: str, kind: str = "sparse_1", *, rank: int | None = None, n: int | None = None
    ) -> Probe:
        """The probe that the training data chose, trained on all of a dataset's training rows.

        Args:
            space: a residual stream, or the features of an SAE.
            dataset: what it was trained on.
            kind: `residual` or `mean_difference` in a residual stream, `sparse_1` or `sparse_n` in an SAE.
            rank: of a 1-sparse probe's feature; the best one unless given.
            n: the number of features of an N-sparse probe; the one that cross-validation chose unless given.

        Raises:
            UserError: no such space, dataset, kind or probe (with those that there are); or it has not been fitted.

        >>> probe = study.probe("narrow_3", "passages", "sparse_1")
        >>> probe.n_features_in_, probe.n_features
        (512, 1)
        >>> rows = study.rows("narrow_3", "passages", "test")
        >>> float(np.mean(probe.predict(rows.X) == rows.labels)) > 0.8
        True
        """
        if kind not in PROBES:
            raise UserError(f"probe '{kind}' is unknown; {closest(kind, PROBES)}")
        place = self.space(space)
        fitted = [probe for probe in self.full_probes(place, dataset) if probe.kind in PROBES]
        return _chosen(fitted, kind, {"rank": rank, "N": n}, f"{place.name}, {dataset}")

    def features(self, sae: Space | str, dataset: str, n: int = 3, examples: int = 3) -> pd.DataFrame:
        """The best features of a training set.

        Args:
            sae: the SAE.
            dataset: what ranked the features, A.
            n: how many features.
            examples: how many prompts of each; `activating` has more, with their activations.

        Returns:
            One row for each feature, best first: `rank`, `feature`, `fires_for` (the label that it raises),
            `cv_auc` (out of fold on A), `density` (the share of A's training rows on which it fires), `auc_<B>` of its
            1-sparse probe on each B, and `prompts`, those on which it fires most.

        >>> best = study.features("narrow_3", "passages", n=2)
        >>> list(best["rank"]), len(best["prompts"][0])
        ([1, 2], 3)
        """
        from sae_transfer.pipeline import feature_views

        return feature_views.best(self, self.sae_space(sae), self.check_dataset(dataset), n, examples)

    def activating(self, sae: Space | str, feature: int, n: int = 10) -> pd.DataFrame:
        """The prompts on which a feature fires most, over all datasets under their own templates.

        Returns:
            At most n rows, the strongest first: `dataset`, `split`, `label`, `activation` and `prompt`.

        Raises:
            UserError: no such SAE or feature.

        >>> feature = int(study.probe("narrow_3", "passages").feature_text)
        >>> study.activating("narrow_3", feature, 2)["activation"].is_monotonic_decreasing
        True
        """
        from sae_transfer.pipeline import feature_views

        return feature_views.activating(self, self.sae_space(sae), feature, n)

    def scores(self, space: Space) -> pd.DataFrame:
        """The scores of every saved probe of a space on every test row, one row a (probe, test row)."""
        folder = self.path(paths.TRANSFER) / space.name
        found = [folder / f"{dataset}.scores.parquet" for dataset in self.datasets]
        # the model was not asked where `verbal.abstaining` is empty, nor about rows that came with their activations
        parts = [files.read_table(path) for path in found if space != VERBAL or path.exists()]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=SCORE_COLUMNS)

    def resamples(self, space: Space, dataset: str) -> Resampled:
        """The probes and rankings of every bootstrap sample of A's training groups."""
        return _cached(resamples.read, self.path(paths.RESAMPLES) / space.name / f"{dataset}.safetensors")

    def analysis(self, name: str, part: str) -> pd.DataFrame:
        """What an analysis computed for one part, in full precision."""
        return _cached(files.read_table, self.path(paths.ANALYSES) / name / f"{part}.parquet")

    def table(self, name: str) -> pd.DataFrame:
        """A table of results/ with typed columns; docs/results.md says what is in each.

        Raises:
            UserError: no such table (with the closest names); or it is missing or damaged.

        >>> study.table("transfer")["auc"].dtype
        dtype('float64')
        """
        from sae_transfer.analyses.analysis_registry import TABLES  # every analysis, which few readers need

        if name not in TABLES:
            raise UserError(f"table '{name}' is unknown; {closest(name, TABLES)}")
        return result_tables.read(self.path(paths.RESULTS) / f"{name}.csv", TABLES[name])

    def headline(self) -> pd.DataFrame:
        """The cells of the transfer table that the report shows: one row a (space, A, B, kind of probe).

        Probes trained on as many rows as there are, B under its own template, the rank or N that A's training rows
        chose. `key` names the kind, with its family where a kind has several. Raises as `table`.

        >>> len(study.headline().query("space == 'narrow_3' and key == 'sparse_1' and train == test == 'passages'"))
        1
        """
        return cells.headline(self.table("transfer"))

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

    def heatmap(self, space: Space | str, key: str = "sparse_1", column: str = "auc") -> "Picture":
        r"""Train x test of one kind of probe, as a notebook displays it; `.save(path)` writes it.

        Args:
            space: a residual stream, or an SAE.
            key: the kind of probe, as in the column `key` of `headline`.
            column: `auc`, or `delta_residual`, the difference to the residual probe.

        Raises:
            UserError: no such space, kind or column; or as `table`.

        >>> study.heatmap("narrow_3", "sparse_1")._repr_png_()[:4]
        b'\x89PNG'
        """
        from sae_transfer.report.figures.picture import heatmap  # matplotlib takes half a second

        return heatmap(self.table("transfer"), self.space(space).name, key, column)


def _chosen(probes: list[Probe], kind: str, wanted: Mapping[str, int | None], where: str) -> Probe:
    """The selected probe of a kind, or that of the wanted rank or N."""
    there = dict.fromkeys(probe.kind for probe in probes)
    if kind not in there:
        raise UserError(f"{where}: no {kind} probe here, but {' and '.join(there)}; choose one, or another space")
    same = [probe for probe in probes if probe.kind == kind]
    for name, value in wanted.items():
        if value is None:
            continue
        values = [probe.rank if name == "rank" else probe.n_features for probe in same]
        if value not in values:
            listed = ", ".join(map(str, sorted(set(values))))
            raise UserError(f"{where}: no {kind} probe with {name} = {value}; there are {listed}")
        same = [probe for probe, one in zip(same, values, strict=True) if one == value]
    return next((probe for probe in same if probe.selected), same[0])


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

"""extract: prompts -> artifacts/activations/layer_<L>/<dataset>.<shard>.safetensors, the stream at one token."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_transfer.artifacts import activations
from sae_transfer.core import files, hashing, items, paths
from sae_transfer.core.items import Item
from sae_transfer.model.model_params import ModelParams
from sae_transfer.pipeline import imports, inputs, stage
from sae_transfer.pipeline.study import Study, prompt_ids

FLOAT32 = 4  # bytes
# Where the model runs, and what is kept together, does not decide what a prompt's residual stream is.
NOT_IDENTITY = {"layers", "device", "device_map", "max_memory", "shard_rows"}


def run(study: Study) -> None:
    """Extracts what is missing: of every shard of every dataset the layers that are not there yet, in one pass."""
    folder = study.path(paths.ACTIVATIONS)
    wanted = [
        Item(f"{space.name}/{dataset}.{number}", (dataset, number, space), of_shard, f"{dataset}.{number}")
        for dataset in study.datasets
        for number, of_shard in enumerate(_inputs_of_shards(study, dataset))
        for space in study.layers
    ]
    items.run(folder, wanted, Extractor(study), stage.version("extract", study.root), single_thread=False)


def settings(model: ModelParams) -> dict[str, Any]:
    """The params of a model that decide what a prompt's residual stream is. What came later counts where it is used."""
    unused = set() if model.chat_template_kwargs else {"chat_template_kwargs"}
    return model.model_dump(mode="json", exclude=NOT_IDENTITY | unused)


def _inputs_of_shards(study: Study, dataset: str) -> list[Mapping[str, Any]]:
    table, model = study.prompts(dataset), study.params.model
    if study.params.datasets[dataset].activations:
        of = {"imported": inputs.read(study)["datasets"][dataset]}
        return [of | {"prompts": hashing.digest(prompt_ids(table)[shard])} for shard in study.shards(dataset)]
    chat = table["chat"].fillna(model.chat_template).astype(bool)
    rows = list(zip(prompt_ids(table), table["prompt"], chat.tolist(), strict=True))
    shared = {"weights": inputs.read(study)["model"], "params": settings(model)}
    return [shared | {"prompts": hashing.digest(rows[shard])} for shard in study.shards(dataset)]


class Extractor:
    """Makes items with one model, which is loaded when the first item needs it."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.loaded: tuple[Any, Any, Mapping[str, Any]] | None = None

    def __call__(self, wanted: Sequence[Item]) -> dict[str, list[Path]]:
        dataset, number, _ = wanted[0].args
        table = self.study.prompts(dataset).iloc[self.study.shards(dataset)[number]]
        layers = [int(item.args[2].layer or 0) for item in wanted]
        if self.study.params.datasets[dataset].activations:
            streams = imports.streams(self.study, dataset, layers, list(table["id"]))
            about, checks = imports.about(self.study, dataset, list(table["prompt"])), None
        else:
            streams, about, checks = self._extracted(table, layers)
        made = {}
        for item, layer in zip(wanted, layers, strict=True):
            path = self.study.path(paths.ACTIVATIONS) / f"{item.name}.safetensors"
            activations.write(path, streams[layer], prompt_ids(table), about)
            made[item.name] = [path]
            if checks:
                beside = path.with_name(f"{path.stem}.checks.json")
                activations.write_checks(beside, checks)
                made[item.name].append(beside)
        return made

    def _extracted(
        self, table: pd.DataFrame, layers: Sequence[int]
    ) -> tuple[dict[int, np.ndarray], dict[str, Any], activations.Checks]:
        """The streams by layer of some prompts, what identifies them, and how far padding and the whole model are."""
        from sae_transfer.model import extraction, tokens

        first = self.loaded is None
        model, tokenizer, weights = self._model()
        params = self.study.model.model_copy(update={"layers": tuple(layers)})
        size = len(table) * len(layers) * model.config.hidden_size * FLOAT32
        files.check_room(self.study.path(paths.ACTIVATIONS), size)
        prompts, chat = list(table["prompt"]), list(table["chat"].fillna(params.chat_template))
        found = tokens.tokenise(model, tokenizer, prompts, params, chat)
        batching = extraction.measured(model, found, params)
        whole = self._distance_to_whole(model, found, params) if first else None
        checks = _checks(batching, whole, max(map(len, found.ids)))
        shown = sys.stderr.isatty()
        streams = extraction.streams_of(model, found.ids, found.at, params, batching.equal_lengths, shown)
        named = self.study.params.model.model_copy(update={"layers": tuple(layers)})  # wherever the study lies
        return streams, extraction.identity(named, model, weights, prompts, found, checks.padding), checks

    def _model(self) -> tuple[Any, Any, Mapping[str, Any]]:
        from sae_transfer.model import loading

        if self.loaded is None:
            params = self.study.model
            self.loaded = (*loading.load_model(params), loading.weights_identity(params))
            if not self.loaded[2]["pinned"]:
                print(f"{params.name}: unpinned, read at commit {self.loaded[2]['revision']}", file=sys.stderr)
        return self.loaded

    def _distance_to_whole(self, model: Any, tokens: Any, params: ModelParams) -> float | None:
        from sae_transfer.model import whole_model

        return whole_model.distance(model, tokens, params)


def _checks(batching: Any, whole: float | None, longest: int) -> activations.Checks:
    padding = "none" if batching.equal_lengths else "right"
    return activations.Checks(batching.limit, batching.padded, batching.equal, whole, padding, longest)

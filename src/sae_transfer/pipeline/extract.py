"""extract: prompts -> artifacts/activations/layer_<L>/<dataset>.<shard>.safetensors, the stream at one token."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_transfer.artifacts import activations
from sae_transfer.core import files, hashing, items, paths
from sae_transfer.core.items import Item
from sae_transfer.core.space import Space
from sae_transfer.pipeline import inputs, stage
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


def _inputs_of_shards(study: Study, dataset: str) -> list[Mapping[str, Any]]:
    table, model = study.prompts(dataset), study.params.model
    settings = {name: value for name, value in model.model_dump(mode="json").items() if name not in NOT_IDENTITY}
    chat = table["chat"].fillna(model.chat_template).astype(bool)
    rows = list(zip(prompt_ids(table), table["prompt"], chat.tolist(), strict=True))
    shared = {"weights": inputs.read(study)["model"], "params": settings}
    return [shared | {"prompts": hashing.digest(rows[shard])} for shard in study.shards(dataset)]


class Extractor:
    """Makes items with one model, which is loaded when the first item needs it."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.loaded: tuple[Any, Any, Mapping[str, Any]] | None = None

    def __call__(self, wanted: Sequence[Item]) -> dict[str, list[Path]]:
        from sae_transfer.model import extraction, loading, tokens

        if self.loaded is None:
            self.loaded = (
                *loading.load_model(self.study.params.model),
                loading.weights_identity(self.study.params.model),
            )
            if not self.loaded[2]["pinned"]:
                name = self.study.params.model.name
                print(f"{name}: unpinned, read at commit {self.loaded[2]['revision']}", file=sys.stderr)
        model, tokenizer, weights = self.loaded
        dataset, number, _ = wanted[0].args
        spaces: list[Space] = [item.args[2] for item in wanted]
        params = self.study.params.model.model_copy(update={"layers": tuple(space.layer for space in spaces)})
        table = self.study.prompts(dataset).iloc[self.study.shards(dataset)[number]]
        folder = self.study.path(paths.ACTIVATIONS)
        files.check_room(folder, len(table) * len(spaces) * model.config.hidden_size * FLOAT32)
        prompts, chat = list(table["prompt"]), list(table["chat"].fillna(params.chat_template))
        found = tokens.tokenise(model, tokenizer, prompts, params, chat)
        streams = extraction.streams_of(model, found.ids, found.at, params, progress=sys.stderr.isatty())
        about = extraction.identity(params, model, weights, prompts, found)
        made = {}
        for item, space in zip(wanted, spaces, strict=True):
            path = folder / f"{item.name}.safetensors"
            activations.write(path, streams[int(space.layer or 0)], prompt_ids(table), about)
            made[item.name] = [path]
        return made

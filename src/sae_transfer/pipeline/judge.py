"""judge: how likely the model itself is to abstain on each test prompt -> artifacts/verbal/<dataset>.parquet.

Where `verbal.abstaining` is empty, nothing is made.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sae_transfer.core import files, hashing, items, paths
from sae_transfer.core.items import Item
from sae_transfer.pipeline import extract, inputs, stage
from sae_transfer.pipeline.study import Study


def run(study: Study) -> None:
    """Asks the whole model, with its head, about every dataset's test rows."""
    folder, chosen, model = study.path(paths.VERBAL), study.params.verbal, study.params.model
    shared = {"verbal": chosen.model_dump(mode="json"), "params": extract.settings(model)}
    wanted = []
    run_on = [name for name in study.datasets if not study.params.datasets[name].activations]
    for name in run_on if chosen.abstaining else ():
        asked = hashing.digest(_asked(study, name).to_numpy().tolist())
        wanted.append(Item(name, (name,), shared | {"prompts": asked, "weights": inputs.read(study)["model"]}))
    items.run(folder, wanted, Judge(study), stage.version("judge", study.root), single_thread=False)


def _asked(study: Study, dataset: str) -> pd.DataFrame:
    """Test rows under every template: id, variation, prompt, and whether it goes through the chat template."""
    table = study.prompts(dataset)
    rows = table.loc[table["split"] == "test", ["id", "variation", "prompt", "chat"]]
    return rows.assign(chat=rows["chat"].fillna(study.params.model.chat_template).astype(bool))


class Judge:
    """Makes items with one model, which is loaded when the first item needs it."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.loaded: Any = None

    def __call__(self, wanted: Sequence[Item]) -> dict[str, list[Path]]:
        from sae_transfer.model import loading, verbal

        if self.loaded is None:
            self.loaded = loading.load_causal_model(self.study.model)
        model, tokenizer = self.loaded
        abstaining = verbal.first_tokens(tokenizer, self.study.params.verbal.abstaining)
        made = {}
        for item in wanted:
            rows = _asked(self.study, item.args[0])
            texts = rows[["prompt", "chat"]].drop_duplicates()
            odds = verbal.answering_log_odds(
                model, tokenizer, list(texts["prompt"]), abstaining, self.study.params.model, list(texts["chat"])
            )
            scored = rows.merge(texts.assign(log_odds=odds), on=["prompt", "chat"], how="left")
            path = self.study.path(paths.VERBAL) / f"{item.name}.parquet"
            files.write_table(path, scored[["id", "variation", "log_odds"]])
            made[item.name] = [path]
        return made

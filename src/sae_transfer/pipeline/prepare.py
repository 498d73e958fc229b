"""prepare: raw datasets -> artifacts/prompts/<dataset>.parquet, one row a prompt, with its split and group."""

from pathlib import Path

import pandas as pd

from sae_transfer.core import files, items, paths
from sae_transfer.core.errors import UserError
from sae_transfer.core.items import Item
from sae_transfer.data.loaders import loader_registry
from sae_transfer.data.loaders.loader_registry import DatasetParams
from sae_transfer.data.prompt_templates import find, render
from sae_transfer.pipeline import inputs, stage
from sae_transfer.pipeline.study import Study


def run(study: Study) -> None:
    """Makes the prompt table of every dataset of the study."""
    hashes, folder = inputs.read(study)["datasets"], study.path(paths.PROMPTS)
    wanted = [
        Item(
            name,
            (study.dataset(name), name, study.seed, folder / f"{name}.parquet"),
            {
                "data": hashes[name],
                "params": study.params.datasets[name].model_dump(mode="json", exclude={"activations"}),
                "seed": study.seed,
            },
        )
        for name in study.datasets
    ]
    jobs = stage.jobs(study.params.jobs) if len(wanted) > 8 else 1  # a start of processes takes longer than a dataset
    items.run(folder, wanted, items.each(prepare), stage.version("prepare", study.root), jobs=jobs)


def prepare(params: DatasetParams, name: str, seed: int, path: Path) -> list[Path]:
    """Writes one dataset's prompt table: every template's prompts, training rows before test rows."""
    train, test = loader_registry.split(name, params, seed, *loader_registry.load(name, params))
    table = [
        {
            "id": row.id,
            "group": row.group,
            "split": split,
            "variation": template,
            "label": row.label,
            "prompt": render(template, row.context, row.question, finished=row.finished),
            "chat": find(template).chat,
            "context": row.context,
            "question": row.question,
            "answer": row.answer,
            "source": row.source,
        }
        for template in dict.fromkeys([params.template, *params.variations])
        for split, part in (("train", train), ("test", test))
        for row in part
    ]
    if len({row["prompt"] for row in table if row["variation"] == params.template}) == 1:
        raise UserError(
            f"datasets.{name}: every row gives the same prompt under the template {params.template}; "
            "correct the template, or the columns that it reads"
        )
    # "boolean" has a missing value: a template that leaves the chat template to the model's params
    files.write_table(path, pd.DataFrame(table).astype({"chat": "boolean"}))
    return [path]

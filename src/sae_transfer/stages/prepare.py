"""prepare@<dataset>: a raw dataset -> one row a prompt, with its split and group."""

import pandas as pd

from sae_transfer import config, datasets, paths, prompts, splits, store
from sae_transfer.datasets import DatasetParams
from sae_transfer.stages import run


def prepare(dataset: str) -> None:
    params = config.read()
    chosen = config.section(params, DatasetParams, "datasets", dataset)
    rows, test_rows = datasets.load(dataset, chosen)
    seed = int(params["seed"])
    train, test = splits.split(rows, test_rows, chosen.n_train, chosen.n_test, seed, dataset, chosen.question_rule)
    table = [
        {
            "id": row.id,
            "group": row.group,
            "split": split,
            "variation": variation,
            "label": row.label,
            "prompt": prompts.render(variation, row.context, row.question),
            "chat": prompts.find(variation).chat,
            "context": row.context,
            "question": row.question,
            "answer": row.answer,
            "source": row.source,
        }
        for variation in dict.fromkeys([chosen.template, *chosen.variations])
        for split, part in (("train", train), ("test", test))
        for row in part
    ]
    # "boolean" has a missing value: a template that leaves the chat template to the model's params
    store.write_table(paths.PROMPTS / f"{dataset}.parquet", pd.DataFrame(table).astype({"chat": "boolean"}))


if __name__ == "__main__":
    run(prepare)

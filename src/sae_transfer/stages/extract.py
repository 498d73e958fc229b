"""extract@<dataset>: prompts -> the residual stream at one token of each prompt, for every wanted layer."""

import sys

from sae_transfer import activations, config, paths, store
from sae_transfer.activations import ModelParams
from sae_transfer.stages import run

FLOAT32 = 4  # bytes


def extract(dataset: str) -> None:
    params = config.section(config.read(), ModelParams, "model")
    table = store.read_table(paths.PROMPTS / f"{dataset}.parquet")
    texts = list(table["prompt"])
    model, tokenizer = activations.load_model(params)
    store.check_room(paths.ACTIVATIONS, len(texts) * len(params.layers) * model.config.hidden_size * FLOAT32)
    chat = list(table["chat"].fillna(params.chat_template))
    layers = activations.residual_stream(model, tokenizer, texts, params, progress=True, chat=chat)
    about = activations.identity(params, model, tokenizer, texts, chat)
    if not about["pinned"]:
        print(f"{params.name}: unpinned, read at commit {about['revision']}", file=sys.stderr)
    activations.write(paths.ACTIVATIONS / dataset, layers, about, list(table["variation"] + "/" + table["id"]))


if __name__ == "__main__":
    run(extract)

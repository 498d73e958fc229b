"""extract@<dataset>: prompts -> the residual stream at each prompt's last token, for every wanted layer."""

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
    layers = activations.residual_stream(model, tokenizer, texts, params, progress=True)
    about = activations.identity(params, model, tokenizer, texts)
    activations.write(paths.ACTIVATIONS / dataset, layers, about, list(table["variation"] + "/" + table["id"]))


if __name__ == "__main__":
    run(extract)

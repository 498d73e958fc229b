"""results/datasets.csv and results/health.csv: what was counted on the way from a dataset to an SAE's features."""

from sae_transfer.results.schema import Column, Table, integers, numbers, texts

DATASETS = Table(
    "datasets",
    "one row a dataset: its rows, and what extraction counted of its prompts",
    (
        *texts(dataset="its name"),
        *integers(
            n_train="training rows",
            n_test="test rows",
            prompts="prompts: rows times templates",
            words="words of the longest prompt, split at white space",
            tokens="tokens of the longest prompt, special tokens included; empty where another tool ran the model",
            truncated="prompts that were cut to fit the model's context; their labels are kept",
            unknown_tokens="tokens of all prompts that the tokenizer does not know",
        ),
        Column(
            "batch_difference",
            "number",
            "relative difference of a prompt's stream beside longer prompts to alone, the worst of those measured",
        ),
        *texts(padding="right, or none where that difference asked for batches of prompts of one length"),
        Column("whole_difference", "number", "relative difference of the stream to the whole model's, where measured"),
    ),
)

HEALTH = Table(
    "health",
    "one row a (SAE, dataset), and one for all datasets: how well the SAE fits the activations at the read token",
    (
        *texts(sae="the SAE", dataset="the dataset; all: the mean over datasets"),
        *integers(layer="whose output it reads", width="its features"),
        Column("l0", "number", "mean number of active features a row", heading="L0", digits=1),
        *numbers(
            explained_variance="1 - sum|x - x'|^2 / sum|x - mean|^2; empty where the activations are constant",
            dead="share of features that fire on no prompt of the dataset; for all: on no prompt of the study",
        ),
        *integers(context_size="tokens of the prompts that the SAE was trained on; empty where it does not say"),
    ),
)

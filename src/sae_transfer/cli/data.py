"""`sae-transfer data`: the datasets under data/."""

from sae_transfer import config, store


def generate() -> None:
    """Write the generated datasets: data/demo (the micro-world) and data/paper (equation, celebrity)."""
    from sae_transfer.datasets import generated

    for path, rows in generated.everything(int(config.read()["seed"])):
        store.write_text(path, generated.as_jsonl(rows))
        print(f"{path}: {len(rows)} rows")

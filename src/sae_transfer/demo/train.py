"""Trains the demo's language model and its SAEs: `make demo-model`. Seeded, and resumed by running it again."""

import hashlib
import shutil
from pathlib import Path

from transformers import Gemma2ForCausalLM, PreTrainedTokenizerFast

from sae_transfer.demo import corpus, model, saes
from sae_transfer.prompts import DEMO_TEMPLATES
from sae_transfer.store import write_json

FOLDER = Path("models/demo")
WORK = Path("models/.training")


def main() -> None:
    tokenizer = corpus.build_tokenizer()
    language_model = model.train(WORK / "model.pt", tokenizer)
    language_model.save_pretrained(FOLDER / "model")
    tokenizer.save_pretrained(FOLDER / "model")
    accuracies = {
        name: model.accuracy(language_model, tokenizer, 1000, templates)
        for name, templates in (("default template", ["default"]), ("all templates", sorted(DEMO_TEMPLATES)))
    }
    for name, table in accuracies.items():
        print(f"{name}: {model.table(table)}")
    write_json(FOLDER / "accuracy.json", accuracies)
    train_saes(language_model, tokenizer)


def train_saes(language_model: Gemma2ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Trains the SAEs that this very model does not have yet, and measures all of them as the study will load them."""
    weights = hashlib.sha256((FOLDER / "model" / "model.safetensors").read_bytes()).hexdigest()
    finished = WORK / f"saes-{weights[:16]}"
    training, held_out = (
        saes.prompts(n, held_out=kept) for n, kept in ((saes.TRAINING_PROMPTS, False), (saes.HELD_OUT_PROMPTS, True))
    )
    report = {}
    for name, recipe in saes.RECIPES.items():
        if not (finished / name).exists():
            data = saes.streams(language_model, tokenizer, recipe.layer, training)
            saes.train(recipe, data, finished / f"{name}.tmp")
            (finished / f"{name}.tmp").rename(finished / name)
        shutil.copytree(finished / name, FOLDER / "saes" / name, dirs_exist_ok=True)
        unseen = saes.streams(language_model, tokenizer, recipe.layer, held_out)
        report[name] = saes.quality(recipe, name, FOLDER / "saes" / name, unseen)
        print(name, report[name], flush=True)
    write_json(FOLDER / "saes.json", report)


if __name__ == "__main__":
    main()

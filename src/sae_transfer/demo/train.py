"""Trains the demo's language model and its SAEs: `make demo-model`. Seeded, and resumed by running it again."""

import hashlib
import shutil
from pathlib import Path

from transformers import Gemma2ForCausalLM, PreTrainedTokenizerFast

from sae_transfer.core.files import write_json
from sae_transfer.data.prompt_templates import DEMO_TEMPLATES
from sae_transfer.demo import corpus, demo_model, demo_saes

FOLDER = Path("models/demo")
WORK = Path("models/.training")


def main() -> None:
    tokenizer = corpus.build_tokenizer()
    language_model = demo_model.train(WORK / "model.pt", tokenizer)
    language_model.save_pretrained(FOLDER / "model")
    tokenizer.save_pretrained(FOLDER / "model")
    accuracies = {
        name: demo_model.accuracy(language_model, tokenizer, 1000, templates)
        for name, templates in (("default template", ["default"]), ("all templates", sorted(DEMO_TEMPLATES)))
    }
    for name, table in accuracies.items():
        print(f"{name}: {demo_model.table(table)}")
    write_json(FOLDER / "accuracy.json", accuracies)
    train_saes(language_model, tokenizer)


def train_saes(language_model: Gemma2ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Trains the SAEs that this very model does not have yet, and measures all of them as the study will load them."""
    weights = hashlib.sha256((FOLDER / "model" / "model.safetensors").read_bytes()).hexdigest()
    finished = WORK / f"saes-{weights[:16]}"
    training, held_out = (
        demo_saes.prompts(n, held_out=kept)
        for n, kept in ((demo_saes.TRAINING_PROMPTS, False), (demo_saes.HELD_OUT_PROMPTS, True))
    )
    report = {}
    for name, recipe in demo_saes.RECIPES.items():
        if not (finished / name).exists():
            data = demo_saes.streams(language_model, tokenizer, recipe.layer, training)
            demo_saes.train(recipe, data, finished / f"{name}.tmp")
            (finished / f"{name}.tmp").rename(finished / name)
        shutil.copytree(finished / name, FOLDER / "saes" / name, dirs_exist_ok=True)
        unseen = demo_saes.streams(language_model, tokenizer, recipe.layer, held_out)
        report[name] = demo_saes.quality(recipe, name, FOLDER / "saes" / name, unseen)
        print(name, report[name], flush=True)
    write_json(FOLDER / "saes.json", report)


if __name__ == "__main__":
    main()

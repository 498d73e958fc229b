"""The demo's SAEs: trained with SAELens on the demo model's residual streams, saved, loaded again and measured."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from transformers import Gemma2ForCausalLM, PreTrainedTokenizerFast

from sae_transfer.core.randomness import rng_for, stable_hash
from sae_transfer.data.prompt_templates import DEMO_TEMPLATES, render
from sae_transfer.demo.corpus import balanced
from sae_transfer.demo.world import DOMAINS, scenes
from sae_transfer.model import encoding, saes
from sae_transfer.model.loading import decoder_layers
from sae_transfer.model.model_params import SaeParams

SEED = 0
TRAINING_PROMPTS, HELD_OUT_PROMPTS = 20_000, 2_000
BATCH = 1024
LAST_TOKENS = 0.25  # of every batch: the position that the study reads is one word in thirty otherwise


@dataclass(frozen=True)
class Recipe:
    """An SAE: the layer whose output it reads, its width, and how it is kept sparse (about `l0` active features)."""

    layer: int
    width: int
    objective: str
    l0: int = 24
    steps: int = 6000


RECIPES = {
    "narrow_2": Recipe(2, 512, "batchtopk"),
    "narrow_3": Recipe(3, 512, "batchtopk"),
    "wide_3": Recipe(3, 2048, "batchtopk", steps=4000),
    "jumprelu_3": Recipe(3, 512, "jumprelu", l0=30),
}


@dataclass(frozen=True)
class Streams:
    """Residual streams without BOS: of every token [m, d] and of each prompt's last token [n, d]."""

    every: torch.Tensor
    last: torch.Tensor


def prompts(n: int, *, held_out: bool) -> list[str]:
    """Prompts over all domains and templates, one question each."""
    rng = Random(stable_hash(SEED, "SAE prompts", held_out))
    sources = [scenes(domain, rng, held_out=held_out) for domain in DOMAINS]
    texts: list[str] = []
    while len(texts) < n:
        scene = next(rng.choice(sources))
        asked = balanced(scene.questions, 2, rng)
        texts += [render(rng.choice(sorted(DEMO_TEMPLATES)), scene.context, question.text) for question in asked]
    return texts[:n]


@torch.inference_mode()
def streams(model: Gemma2ForCausalLM, tokenizer: PreTrainedTokenizerFast, layer: int, texts: list[str]) -> Streams:
    """What the layer puts out, before any final norm."""
    every, last = [], []
    _, layers = decoder_layers(model.model)
    for start in range(0, len(texts), 256):
        batch = tokenizer(texts[start : start + 256], padding=True, return_tensors="pt")
        mask = batch["attention_mask"].bool()
        caught: list[torch.Tensor] = []
        handle = layers[layer].register_forward_hook(
            lambda _module, _inputs, output, caught=caught: caught.append(
                output[0] if isinstance(output, tuple) else output
            )
        )
        model.model(batch["input_ids"], attention_mask=mask, use_cache=False)
        handle.remove()
        ends = mask.sum(dim=1) - 1
        last.append(caught[0][torch.arange(len(ends)), ends])
        mask[:, 0] = False  # BOS
        every.append(caught[0][mask])
    return Streams(torch.cat(every), torch.cat(last))


def train(recipe: Recipe, data: Streams, folder: Path) -> None:
    """Trains one SAE and saves it for inference."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(SEED)
    config = SAETrainerConfig(
        total_training_samples=recipe.steps * BATCH,
        train_batch_size_samples=BATCH,
        lr=1e-3,
        lr_end=1e-5,
        lr_scheduler_name="cosineannealing",
        lr_warm_up_steps=200,
        n_batches_for_norm_estimate=50,
        dead_feature_window=300,  # steps; the default outlasts much of so short a training
    )
    sae = _training_sae(recipe, data.every.shape[1])
    trained = SAETrainer(config, sae, _batches(data)).fit()
    trained.cfg.metadata.model_name = "sae-transfer-demo"
    trained.cfg.metadata.hook_name = f"model.layers.{recipe.layer}"
    trained.save_inference_model(folder)


def _training_sae(recipe: Recipe, d_in: int) -> Any:
    from sae_lens import (
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        JumpReLUTrainingSAE,
        JumpReLUTrainingSAEConfig,
    )

    common: dict[str, Any] = {
        "d_in": d_in,
        "d_sae": recipe.width,
        "normalize_activations": "expected_average_only_in",
    }
    if recipe.objective == "batchtopk":
        return BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(k=recipe.l0, **common))
    return JumpReLUTrainingSAE(
        JumpReLUTrainingSAEConfig(
            jumprelu_sparsity_loss_mode="quadratic",
            target_l0=recipe.l0,
            l0_coefficient=10.0,
            l0_warm_up_steps=1000,
            jumprelu_init_threshold=0.1,
            jumprelu_bandwidth=0.2,
            pre_act_loss_coefficient=3e-3,  # without it two features in three die
            **common,
        )
    )


def _batches(data: Streams) -> Iterator[torch.Tensor]:
    rng = rng_for(SEED, "SAE batches")
    n_last = int(LAST_TOKENS * BATCH)
    while True:
        every = torch.from_numpy(rng.integers(len(data.every), size=BATCH - n_last))
        last = torch.from_numpy(rng.integers(len(data.last), size=n_last))
        yield torch.cat([data.every[every], data.last[last]])


def quality(recipe: Recipe, name: str, folder: Path, held_out: Streams) -> dict[str, Any]:
    """The saved SAE, loaded as the study loads it: L0, explained variance and dead share on all and on last tokens."""
    sae = saes.load_sae(name, SaeParams(layer=recipe.layer, path=folder))
    return {
        part: asdict(encoding.encode(sae, name, np.asarray(getattr(held_out, part)))[1]) for part in ("every", "last")
    } | {"objective": recipe.objective, "layer": recipe.layer}

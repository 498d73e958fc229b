"""The demo's language model: a small Gemma 2 that learns the micro-world, and how well it has learnt it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

from sae_transfer.core.randomness import stable_hash
from sae_transfer.data.prompt_templates import render
from sae_transfer.demo import corpus
from sae_transfer.demo.world import DOMAINS, scenes

SEED = 0
STEPS = corpus.CURRICULUM[-1].until
BATCH = 32
LEARNING_RATE = 1e-3
WARM_UP = 100
DECAY_FROM = 0.7  # of all steps: the rate is constant until there
CHECKPOINT_EVERY = 250
IGNORE = -100


def config(tokenizer: PreTrainedTokenizerFast) -> Gemma2Config:
    """A Gemma 2 of four layers, with two choices that decide whether it learns the world in minutes or not at all.

    Weights start at 1/sqrt(d) (from the default of 0.02 it needs eight times as long). Every other layer sees three
    words back, as far as a fact's owner stands from its value: so owner and value meet before anything is looked up.
    """
    return Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        query_pre_attn_scalar=32,
        max_position_embeddings=256,
        sliding_window=3,
        initializer_range=0.08,
        attn_implementation="eager",
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.pad_token_id,
    )


def train(checkpoint: Path, tokenizer: PreTrainedTokenizerFast, steps: int = STEPS) -> Gemma2ForCausalLM:
    """Trains from the checkpoint, if there is one, to the last step; every step's batch depends on its number alone."""
    torch.manual_seed(SEED)
    model = Gemma2ForCausalLM(config(tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    step = _resume(checkpoint, model, optimizer)
    _choose_threads(model, tokenizer)
    bar = tqdm(total=steps, initial=step, desc="language model", unit="steps")
    while step < steps:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * schedule(step, steps)
        loss = _loss(model, _batch(tokenizer, step))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        bar.update()
        if step % CHECKPOINT_EVERY == 0 or step == steps:
            bar.set_postfix(loss=f"{loss.item():.3f}")
            _save(checkpoint, model, optimizer, step)
            if step % (4 * CHECKPOINT_EVERY) == 0 or step == steps:
                tqdm.write(f"step {step}: {table(accuracy(model, tokenizer, 200))}")
    return model.eval()


def schedule(step: int, steps: int) -> float:
    """Warm-up, a constant rate, then a straight line down to a twentieth."""
    left = (1 - step / steps) / (1 - DECAY_FROM)
    return min(1.0, (step + 1) / WARM_UP, 0.05 + 0.95 * left)


def accuracy(
    model: Gemma2ForCausalLM, tokenizer: PreTrainedTokenizerFast, n: int, templates: Sequence[str] = ("default",)
) -> dict[str, tuple[float, float]]:
    """Share of held-out prompts answered right, by domain: (answerable, unanswerable), n prompts a domain."""
    return {domain: _accuracy(model, tokenizer, domain, n, templates) for domain in DOMAINS}


def table(accuracies: dict[str, tuple[float, float]]) -> str:
    return "  ".join(f"{domain} {yes:.2f}/{no:.2f}" for domain, (yes, no) in accuracies.items())


@torch.inference_mode()
def _accuracy(
    model: Gemma2ForCausalLM, tokenizer: PreTrainedTokenizerFast, domain: str, n: int, templates: Sequence[str]
) -> tuple[float, float]:
    rng = Random(stable_hash(SEED, "accuracy", domain))
    source = scenes(domain, rng, held_out=True)
    right: dict[int, list[bool]] = {0: [], 1: []}
    while min(map(len, right.values())) < n // 2:
        scene = next(source)
        questions = corpus.balanced(scene.questions, 2, rng)
        prompts = [render(rng.choice(templates), scene.context, question.text) for question in questions]
        for prompt, question in zip(prompts, questions, strict=True):
            logits = model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1]
            said = tokenizer.convert_ids_to_tokens(int(logits.argmax()))
            right[question.label].append(said == question.answer.lower())
    return sum(right[1]) / len(right[1]), sum(right[0]) / len(right[0])


@dataclass(frozen=True)
class Packed:
    """Lessons as tensors [batch, length]; `segment` is 0 in the context, 1, 2, ... in its questions, -1 in padding."""

    ids: torch.Tensor
    targets: torch.Tensor
    segment: torch.Tensor
    position: torch.Tensor

    def masks(self, window: int) -> dict[str, torch.Tensor]:
        """Additive attention masks: a question sees the context and itself, as if it had been asked alone.

        Were questions to see each other's answers, the model would answer by elimination and never learn to look up.
        """
        same = self.segment[:, :, None] == self.segment[:, None, :]
        causal = torch.ones(self.ids.shape[1], self.ids.shape[1], dtype=torch.bool).tril()
        seen = causal & (same | (self.segment[:, None, :] == 0))
        near = (self.position[:, :, None] - self.position[:, None, :]) < window
        return {"full_attention": _additive(seen), "sliding_attention": _additive(seen & near)}


def _additive(seen: torch.Tensor) -> torch.Tensor:
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.bfloat16).min)[:, None]


def _batch(tokenizer: PreTrainedTokenizerFast, step: int) -> Packed:
    rng = Random(stable_hash(SEED, "batch", step))
    term = next(term for term in corpus.CURRICULUM if step < term.until)
    domains = rng.choices(list(term.shares), list(term.shares.values()), k=BATCH)
    lessons = [corpus.lesson(next(scenes(domain, rng, held_out=False)), rng, term.recap_share) for domain in domains]
    return _packed(lessons, tokenizer)


def _packed(lessons: Sequence[corpus.Lesson], tokenizer: PreTrainedTokenizerFast) -> Packed:
    rows = [_tokens(lesson, tokenizer) for lesson in lessons]
    longest = max(len(row[0]) for row in rows)
    filling = (tokenizer.pad_token_id, IGNORE, -1, 0)
    columns = [
        torch.tensor([row[i] + [filling[i]] * (longest - len(row[i])) for row in rows]) for i in range(len(filling))
    ]
    return Packed(*columns)


def _tokens(
    lesson: corpus.Lesson, tokenizer: PreTrainedTokenizerFast
) -> tuple[list[int], list[int], list[int], list[int]]:
    ids = tokenizer(lesson.context)["input_ids"]
    start = len(ids)
    targets, segment, position = [IGNORE] * start, [0] * start, list(range(start))
    for number, (question, answer) in enumerate(lesson.questions, 1):
        asked = tokenizer(question, add_special_tokens=False)["input_ids"]
        ids += asked
        targets += [IGNORE] * (len(asked) - 1) + [tokenizer.convert_tokens_to_ids(answer.lower())]
        segment += [number] * len(asked)
        position += range(start, start + len(asked))
    return ids, targets, segment, position


def _loss(model: Gemma2ForCausalLM, batch: Packed) -> torch.Tensor:
    """Cross entropy of the answers alone: the head runs only where one is due."""
    asked = batch.targets != IGNORE
    masks = batch.masks(model.config.sliding_window)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(batch.ids, attention_mask=masks, position_ids=batch.position, use_cache=False)
        logits = model.lm_head(hidden.last_hidden_state[asked]).float()
    cap = model.config.final_logit_softcapping
    return cross_entropy(torch.tanh(logits / cap) * cap, batch.targets[asked])


def _choose_threads(model: Gemma2ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Takes the fastest number of threads: on a busy machine more of them can be many times slower."""
    batch, times = _batch(tokenizer, 0), {}
    for threads in sorted({1, 2, torch.get_num_threads()}):
        torch.set_num_threads(threads)
        _loss(model, batch)
        start = time.perf_counter()
        for _ in range(3):
            _loss(model, batch).backward()  # type: ignore[no-untyped-call]
        times[threads] = time.perf_counter() - start
    model.zero_grad()
    torch.set_num_threads(min(times, key=lambda threads: times[threads]))


def _save(path: Path, model: Gemma2ForCausalLM, optimizer: torch.optim.Optimizer, step: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, temporary)
    temporary.replace(path)


def _resume(path: Path, model: Gemma2ForCausalLM, optimizer: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    state: dict[str, Any] = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])

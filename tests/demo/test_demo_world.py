"""The micro-world's questions have right answers, its datasets are fair, and the model's lessons are its prompts."""

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random

import pytest
import torch
from scipy.stats import chi2_contingency
from transformers import Gemma2ForCausalLM

from sae_transfer.data.prompt_templates import DEMO_TEMPLATES, render
from sae_transfer.demo import corpus, demo_model, generated
from sae_transfer.demo.world import ABSTAIN, DOMAINS, INVENTED, KNOWN, PROPERTIES, scenes

ROOT = Path(__file__).parents[2]
BY_DOMAIN = pytest.mark.parametrize("domain", DOMAINS)


@pytest.fixture(scope="module")
def datasets():
    return dict(generated.everything(0))


@pytest.fixture(scope="module")
def demo(datasets):
    return {domain: datasets[Path(f"data/demo/{domain}.jsonl")] for domain in DOMAINS}


@pytest.fixture(scope="module")
def tokenizer():
    return corpus.build_tokenizer()


def sample(domain, n, seed=0, *, held_out):
    return list(islice(scenes(domain, Random(seed), held_out=held_out), n))


# Each reads the context's sentences on its own and gives the answer (None: there is none) and what is asked for.


def read_passage(context, question):
    stated = {(name, verb): value for name, verb, value in re.findall(r"(\w+) (like|eat|keep|play)s (\w+)\.", context)}
    name, verb = re.fullmatch(r"Which \w+ does (\w+) (\w+)\?", question).groups()
    return stated.get((name, verb)), verb


def read_snippet(context, question):
    what = r"(?:the (?P<who>\w+) \w+ a (?P<a>\w+)|a (?P<b>\w+) was \w+)"
    pattern = rf"(?:On (?P<when>\w+) )?{what}(?: in the (?P<where>\w+))?\."
    said = re.fullmatch(pattern, context, re.IGNORECASE).groupdict()
    kind, *_ = question.split()
    thing = re.search(r"the (\w+)", question)[1]
    return (said[kind.lower()] if thing in (said["a"], said["b"]) else None), kind


def read_claims(context, question):
    dimension = {value: name for name, values in PROPERTIES.items() for value in values}
    stated = dict(re.findall(r"The (\w+) is (\w+)\.", context))
    thing, claimed = re.fullmatch(r"Is the (\w+) (\w+)\?", question).groups()
    about_it = dimension.get(stated.get(thing)) == dimension[claimed]
    return (("yes" if stated[thing] == claimed else "no") if about_it else None), dimension[claimed]


def read_sum(context, question):
    values = {name: int(value) for name, value in re.findall(r"(\w) = (\d+)", context)}
    terms = re.fullmatch(r"What is (.*)\?", question)[1].split(" + ")
    return (str(sum(values[term] for term in terms)) if set(terms) <= set(values) else None), len(terms)


def read_person(context, question):
    name = re.match(r"\w+ \w+", context)[0]
    assert name in question
    letter = {
        "Which city did": r"visited (\w+)\.",
        "On which day did": r"gave a speech on (\w+)\.",
        "Which gift did": r"received a (\w+)\.",
        "Whom did": r"met (\w+)\.",
    }
    memory = {"In which city was": "birthplace", "In which year was": "birth year", "Which prize did": "prize"}
    asked = question.split(f" {name} ")[0]
    if asked in memory:
        return KNOWN.get(name, {}).get(memory[asked]), asked
    found = re.search(letter[asked], context)
    return (found and found[1]), asked


READERS = {
    "passages": read_passage,
    "snippets": read_snippet,
    "yesno": read_claims,
    "sums": read_sum,
    "people": read_person,
}


@BY_DOMAIN
def test_answers_are_what_the_context_says(domain):
    labels = Counter()
    for scene in sample(domain, 300, held_out=True) + sample(domain, 100, held_out=False):
        for question in scene.questions:
            answer, _ = READERS[domain](scene.context, question.text)
            assert question.label == (answer is not None), (scene.context, question)
            assert question.answer == (answer or ABSTAIN[domain]), (scene.context, question)
            labels[question.label] += 1
    assert min(labels.values()) > 300


def test_each_domain_has_a_word_of_its_own_for_no_answer():
    assert len(set(ABSTAIN.values())) == len(DOMAINS) == 5
    for domain in DOMAINS:
        said = {q.answer for scene in sample(domain, 300, held_out=False) for q in scene.questions if q.label}
        assert not said & set(ABSTAIN.values())


@BY_DOMAIN
def test_the_world_is_seeded(domain):
    assert sample(domain, 20, held_out=True) == sample(domain, 20, held_out=True)
    assert sample(domain, 20, held_out=True) != sample(domain, 20, seed=1, held_out=True)


@BY_DOMAIN
def test_what_the_model_learns_from_is_not_what_it_is_asked(domain, demo):
    training = sample(domain, 3000, held_out=False)
    held_out = sample(domain, 1000, held_out=True)
    assert not {scene.novelty for scene in training} & {scene.novelty for scene in held_out}
    assert not {scene.context for scene in training} & {row.context for row in demo[domain]}
    if domain == "people":
        invented = {row.group for row in demo[domain]} - set(KNOWN)
        assert not {scene.group for scene in training} & invented
        assert len(invented) > 50


@BY_DOMAIN
def test_datasets_are_balanced_and_right(domain, demo):
    rows = demo[domain]
    assert Counter(row.label for row in rows) == {0: generated.DEMO_ROWS // 2, 1: generated.DEMO_ROWS // 2}
    assert set(Counter(row.context for row in rows).values()) == {2}  # one question of each label about a context
    assert len({(row.context, row.label) for row in rows}) == len({row.id for row in rows}) == len(rows)
    for row in rows:
        answer, _ = READERS[domain](row.context, row.question)
        assert row.answer == answer, row
        assert row.label == (answer is not None), row


@BY_DOMAIN
def test_what_is_asked_for_does_not_give_the_label_away(domain, demo):
    asked = [(READERS[domain](row.context, row.question)[1], row.label) for row in demo[domain]]
    kinds = sorted({kind for kind, _ in asked})
    table = [[asked.count((kind, label)) for label in (0, 1)] for kind in kinds]
    assert len(kinds) > 1
    assert chi2_contingency(table).pvalue > 0.01, dict(zip(kinds, table, strict=True))


def test_known_and_invented_people_get_questions_of_both_labels(demo):
    cells = Counter((row.group in KNOWN, row.label) for row in demo["people"])
    assert len(cells) == 4
    assert min(cells.values()) >= 0.2 * len(demo["people"])
    assert not set(KNOWN) & set(INVENTED)


def test_generated_datasets_are_the_same_in_every_process(datasets):
    code = (
        "import hashlib; from sae_transfer.demo import generated;"
        "[print(p, hashlib.sha256(generated.as_jsonl(r).encode()).hexdigest()) for p, r in generated.everything(0)]"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines() == [f"{path} {sha256(rows)}" for path, rows in datasets.items()]
    assert len(datasets) == 7


def sha256(rows):
    return hashlib.sha256(generated.as_jsonl(rows).encode()).hexdigest()


def test_generated_datasets_are_the_files_in_data(datasets):
    if absent := [str(path) for path in datasets if not (ROOT / path).exists()]:
        pytest.skip(f"{absent[0]} is not here: `dvc pull data.dvc` brings it")
    for path, rows in datasets.items():
        assert (ROOT / path).read_bytes() == generated.as_jsonl(rows).encode(), path


# Tokenizer and lessons


def test_the_tokenizer_knows_every_word_and_adds_one_bos(tokenizer, demo):
    for domain, rows in demo.items():
        for template in DEMO_TEMPLATES:
            batch = tokenizer([render(template, row.context, row.question) for row in rows])["input_ids"]
            for ids in batch:
                assert tokenizer.unk_token_id not in ids, (domain, template, tokenizer.decode(ids))
                assert ids[0] == tokenizer.bos_token_id
                assert ids.count(tokenizer.bos_token_id) == 1
        answers = [row.answer or ABSTAIN[domain] for row in rows]
        for ids in tokenizer(answers, add_special_tokens=False)["input_ids"]:
            assert len(ids) == 1  # one word answers
            assert ids[0] != tokenizer.unk_token_id
    assert tokenizer("zyzzyva")["input_ids"] == [tokenizer.bos_token_id, tokenizer.unk_token_id]


def lessons(n, recap_share, seed=0):
    rng = Random(seed)
    chosen = [rng.choice(sorted(DOMAINS)) for _ in range(n)]
    return [corpus.lesson(next(scenes(domain, rng, held_out=False)), rng, recap_share) for domain in chosen]


@pytest.fixture(scope="module")
def tiny(tokenizer):
    torch.manual_seed(0)
    return Gemma2ForCausalLM(demo_model.config(tokenizer)).eval()


@pytest.mark.parametrize("recap_share", [0.0, 1.0])
def test_a_packed_question_is_seen_as_if_asked_alone(tiny, tokenizer, recap_share):
    taught = lessons(8, recap_share)
    packed = demo_model._packed(taught, tokenizer)
    with torch.inference_mode():
        masks = packed.masks(tiny.config.sliding_window)
        hidden = tiny.model(packed.ids, attention_mask=masks, position_ids=packed.position, use_cache=False)[0]
        for i, lesson in enumerate(taught):
            ends = (packed.targets[i] != demo_model.IGNORE).nonzero()[:, 0].tolist()
            assert len(ends) == len(lesson.questions) > 1
            for end, (question, answer) in zip(ends, lesson.questions, strict=True):
                separator = "" if question[0].isspace() else " "
                alone = tokenizer(lesson.context + separator + question, return_tensors="pt")
                expected = tiny.model(**alone, use_cache=False)[0][0, -1]
                torch.testing.assert_close(hidden[i, end], expected, rtol=1e-4, atol=1e-4)
                assert tokenizer.convert_ids_to_tokens(int(packed.targets[i, end])) == answer.lower()


def test_a_lesson_is_the_prompts_of_the_study(tokenizer):
    rng, prompts = Random(3), []
    scene = sample("passages", 1, held_out=False)[0]
    for _ in range(60):
        lesson = corpus.lesson(scene, rng, recap_share=0.0)
        prompts += [lesson.context + question for question, _ in lesson.questions]
    assert set(prompts) == {
        render(template, scene.context, q.text) for template in DEMO_TEMPLATES for q in scene.questions
    }


def test_a_lesson_asks_as_many_answerable_as_unanswerable_questions():
    for domain in DOMAINS:
        for scene in sample(domain, 50, held_out=False):
            asked = corpus.balanced(scene.questions, corpus.QUESTIONS, Random(0))
            assert 2 * sum(question.label for question in asked) == len(asked) <= corpus.QUESTIONS
            assert len(set(map(id, asked))) == len(asked)
            assert asked or len({question.label for question in scene.questions}) == 1


def test_the_curriculum_covers_every_step():
    ends = [term.until for term in corpus.CURRICULUM]
    assert ends == sorted(set(ends))
    assert ends[-1] == demo_model.STEPS
    assert all(set(term.shares) <= set(DOMAINS) for term in corpus.CURRICULUM)
    assert set(corpus.CURRICULUM[-1].shares) == set(DOMAINS)


def test_a_batch_depends_on_its_step_alone(tokenizer, monkeypatch):
    monkeypatch.setattr(demo_model, "BATCH", 4)
    first, again, other = (demo_model._batch(tokenizer, step).ids.tolist() for step in (5, 5, 6))
    assert first == again != other
    assert demo_model._batch(tokenizer, demo_model.STEPS - 1).ids.shape[0] == 4


def test_the_learning_rate_warms_up_holds_and_falls():
    rates = [demo_model.schedule(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / demo_model.WARM_UP)
    assert set(rates[demo_model.WARM_UP : 650]) == {1.0}
    assert rates[700:] == sorted(rates[700:], reverse=True)
    assert rates[-1] == pytest.approx(0.05, abs=0.01)


class KilledError(Exception):
    pass


def test_resumed_training_equals_uninterrupted_training_bit_for_bit(tokenizer, tmp_path, monkeypatch):
    for name, value in {"BATCH": 2, "CHECKPOINT_EVERY": 2, "WARM_UP": 2}.items():
        monkeypatch.setattr(demo_model, name, value)
    monkeypatch.setattr(demo_model, "accuracy", lambda *_: {})
    monkeypatch.setattr(demo_model, "_choose_threads", lambda *_: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = demo_model.train(tmp_path / "whole.pt", tokenizer, steps=4).state_dict()
        with monkeypatch.context() as patch:
            loss, batches_left = demo_model._loss, iter(range(3))

            def killed_at_the_fourth(*given):
                if next(batches_left, None) is None:
                    raise KilledError
                return loss(*given)

            patch.setattr(demo_model, "_loss", killed_at_the_fourth)
            with pytest.raises(KilledError):
                demo_model.train(tmp_path / "cut.pt", tokenizer, steps=4)
        assert torch.load(tmp_path / "cut.pt", weights_only=True)["step"] == 2
        torch.manual_seed(99)  # nothing hangs on a global state
        resumed = demo_model.train(tmp_path / "cut.pt", tokenizer, steps=4).state_dict()
        untrained = Gemma2ForCausalLM(demo_model.config(tokenizer)).state_dict()
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not all(torch.equal(whole[name], untrained[name]) for name in whole)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cut.pt", "whole.pt"]
    last = torch.load(tmp_path / "whole.pt", weights_only=True)["optimizer"]["param_groups"][0]["lr"]
    assert last == pytest.approx(demo_model.LEARNING_RATE * demo_model.schedule(3, 4))

"""A row that depends on its batch is seen, and read where it does not, or refused."""

import numpy as np
import pytest
import torch
import transformers as hf

import tiny_models as tiny
from sae_transfer.core.errors import UserError
from sae_transfer.model import extraction, invariance, loading
from sae_transfer.model.invariance import Batching, UnstableError, measure
from sae_transfer.model.tokens import tokenise

IDS = [list(range(1, n + 1)) for n in (3, 9, 5, 12, 12, 4)]
AT = [len(row) - 1 for row in IDS]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def model(effect):
    """Runs prompts: a row's stream is a function of its own tokens, times 1 + effect(batch, row)."""

    def run(ids, at):
        own = np.stack([np.array([sum(row[: i + 1]), i + 1.0, 1.0]) for row, i in zip(ids, at, strict=True)])
        return {0: own * np.array([[1 + effect(ids, row)] for row in ids])}

    return run


def longest(ids, row):
    return float(max(map(len, ids)) > len(row))


def beside(ids, row):
    return float(len(ids) > 1)


@pytest.mark.parametrize(("effect", "padded", "equal"), [(lambda *_: 0.0, 0.0, None), (longest, 1.0, 0.0)])
def test_what_was_measured_decides_how_prompts_are_batched(effect, padded, equal):
    found = measure(model(effect), IDS, AT, 8192, 1e-4)
    assert found == Batching(1e-4, padded, equal)
    assert found.equal_lengths == (padded > 0)


def test_a_row_that_depends_on_any_other_row_is_refused():
    with pytest.raises(
        UnstableError,
        match=r"beside those of its length \(relative difference 1\); set model.tokens_per_batch: 1",
    ):
        measure(model(beside), IDS, AT, 8192, 1e-4)
    with pytest.raises(UnstableError, match="beside"):  # where all prompts have one length
        measure(model(beside), [[1, 2, 3], [1, 4, 2]], [2, 2], 8192, 1e-4)


def test_a_model_that_keeps_what_the_last_batch_set_is_refused():
    most = []

    def grows(ids, _row):
        most.append(max(map(len, ids)))
        return float(max(most))

    with pytest.raises(UnstableError, match="from run to run"):
        measure(model(grows), IDS, AT, 8192, 1e-4)


def test_nan_in_a_padded_batch_is_no_agreement():
    with pytest.raises(UnstableError, match="inf"):
        measure(model(lambda ids, _row: float("nan") if len(ids) > 1 else 0.0), IDS, AT, 8192, 1e-4)


def test_a_single_prompt_has_nothing_beside_it():
    assert measure(model(beside), IDS[:1], AT[:1], 8192, 1e-4) == Batching(1e-4)


def test_no_batch_of_the_check_is_larger_than_those_of_the_run():
    sizes = []

    def run(ids, at):
        sizes.append(len(ids) * max(map(len, ids)))
        return model(lambda *_: 0.0)(ids, at)

    measure(run, IDS, AT, 24, 1e-4)
    assert max(sizes) <= 24


@pytest.mark.parametrize("seed", range(20))
def test_prompts_of_different_length_are_compared(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 40, rng.integers(1, 30)).tolist()
    budget = int(rng.choice([10, 60, 8192]))
    rows = invariance.compared(lengths, budget)
    share = [length for length in lengths if 2 * length <= budget]
    pool = share if len(share) > 1 else lengths
    assert len(rows) == len(set(rows)) == min(invariance.MOST, len(pool))
    found = [lengths[row] for row in rows]
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1]) == (max(pool), min(pool)) or len(set(pool)) > len(pool) >= 1
    assert len(set(found)) == min(invariance.MOST, len(set(pool)))


TEXTS = tiny.prompts([27, 60, 14, 60, 3])


@pytest.mark.parametrize("family", ["phi3_longrope", "fnet", "convbert"])
def test_families_whose_rows_depend_on_the_longest_are_read_without_padding(tmp_path, family):
    tiny.save(tmp_path, tiny.FAMILIES[family])
    params = tiny.params_of(tmp_path)
    expected = tiny.whole(tmp_path, TEXTS)
    assert tiny.distance(tiny.ours(tmp_path, TEXTS), expected) < 1e-5
    loaded, tokenizer = loading.load_model(params)
    tokens = tokenise(loaded, tokenizer, TEXTS, params)
    # The negative control: padded together they are wrong, and the check says by how much.
    assert tiny.distance(extraction.streams_of(loaded, tokens.ids, tokens.at, params)[3], expected) > 1e-3
    found = extraction.measured(loaded, tokens, params)
    assert found.equal_lengths
    assert found.padded > 1e-3
    assert found.equal < 1e-5


def test_a_model_that_draws_at_random_is_refused(tmp_path):
    tiny.save(tmp_path, hf.BertForMaskedLM(hf.BertConfig(**tiny.ENCODER)))
    params = tiny.params_of(tmp_path)
    loaded, tokenizer = loading.load_model(params)
    with pytest.raises(
        UserError, match="not supported: BertModel gives a prompt another residual stream from run to run"
    ):
        extraction.measured(loaded.train(), tokenise(loaded, tokenizer, TEXTS, params), params)  # with dropout


@pytest.mark.parametrize("seed", range(6))
def test_any_order_and_batch_size_gives_the_whole_models_stream(tmp_path, seed):
    rng = np.random.default_rng(seed)
    family = str(rng.choice(["llama", "phi3_longrope", "gpt_neox", "mixtral", "fnet", "gemma4_shared"]))
    layer = int(rng.integers(tiny.N_LAYERS))
    tiny.save(tmp_path, tiny.FAMILIES[family])
    texts = tiny.prompts(rng.integers(1, 60, 7).tolist(), seed)
    options = {"tokens_per_batch": int(rng.choice([1, 70, 8192]))}
    assert tiny.distance(tiny.ours(tmp_path, texts, layer, **options), tiny.whole(tmp_path, texts, layer)) < 2e-5

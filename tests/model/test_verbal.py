"""The model's own judgement, with the demo's model itself."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sae_transfer.core.errors import UserError
from sae_transfer.data.prompt_templates import render
from sae_transfer.demo.world import ABSTAIN
from sae_transfer.model import loading, verbal
from sae_transfer.model.model_params import ModelParams
from sae_transfer.stats.roc import auc

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "models/demo/model"
PARAMS = ModelParams(name=str(FOLDER), layers=(1,), device="cpu")

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="`dvc pull models.dvc` brings the demo's model")


@pytest.fixture(scope="module")
def loaded():
    return loading.load_causal_model(PARAMS)


@pytest.fixture(scope="module")
def questions():
    """(prompts, labels) of two domains."""
    rows = [
        json.loads(line)
        for name in ("passages", "sums")
        for line in (ROOT / f"data/demo/{name}.jsonl").read_text().splitlines()[:40]
    ]
    prompts = [render("default", row["context"], row["question"]) for row in rows]
    return prompts, np.array([row["label"] for row in rows])


def odds(loaded, prompts, params=PARAMS):
    model, tokenizer = loaded
    return verbal.answering_log_odds(
        model, tokenizer, prompts, verbal.first_tokens(tokenizer, list(ABSTAIN.values())), params
    )


def test_log_odds_equal_a_direct_computation_one_prompt_at_a_time(loaded, questions):
    model, tokenizer = loaded
    prompts = questions[0][:9]
    words = [tokenizer.convert_tokens_to_ids(word) for word in ABSTAIN.values()]
    for prompt, found in zip(prompts, odds(loaded, prompts), strict=True):
        with torch.inference_mode():
            p = model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1].double().softmax(0)[words].sum()
        assert found == pytest.approx(float(torch.log((1 - p) / p)), abs=1e-3)


def test_batches_and_the_order_of_the_prompts_change_nothing(loaded, questions):
    prompts = questions[0][:20]
    whole = odds(loaded, prompts)
    one_by_one = odds(loaded, prompts, PARAMS.model_copy(update={"tokens_per_batch": 1}))
    np.testing.assert_allclose(one_by_one, whole, atol=1e-4)
    np.testing.assert_allclose(odds(loaded, prompts[::-1])[::-1], whole, atol=1e-4)


def test_the_demos_model_abstains_where_there_is_no_answer(loaded, questions):
    prompts, labels = questions
    found = odds(loaded, prompts)
    assert auc(found, labels) > 0.95
    assert np.mean((found > 0) == (labels == 1)) > 0.9


def test_the_whole_model_is_loaded_whatever_layers_are_wanted(loaded):
    model, _ = loaded
    assert model.config.num_hidden_layers == json.loads((FOLDER / "config.json").read_text())["num_hidden_layers"] == 4
    assert len(loading.decoder_layers(loading.load_model(PARAMS)[0])[1]) == 2


def test_the_first_tokens_of_answers(loaded):
    tokenizer = loaded[1]
    one = verbal.first_tokens(tokenizer, ["unknown"])
    assert one == [tokenizer.convert_tokens_to_ids("unknown")]
    assert verbal.first_tokens(tokenizer, [" unknown", "unknown"]) == one
    assert len(verbal.first_tokens(tokenizer, list(ABSTAIN.values()))) == 5


@pytest.mark.parametrize(("answers", "message"), [(["zebra"], "does not know 'zebra'"), ([" "], "an empty string")])
def test_answers_that_no_token_begins_are_refused(loaded, answers, message):
    with pytest.raises(UserError, match=message):
        verbal.first_tokens(loaded[1], answers)


def test_a_head_that_is_not_there_is_refused(tmp_path):
    import safetensors.numpy

    weights = safetensors.numpy.load_file(FOLDER / "model.safetensors")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        if (FOLDER / name).is_file():
            (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    weights.pop(next(name for name in weights if name.endswith("layers.3.mlp.down_proj.weight")))
    safetensors.numpy.save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"layers\.3\.mlp\.down_proj\.weight missing from the weights"):
        loading.load_causal_model(PARAMS.model_copy(update={"name": str(tmp_path)}))

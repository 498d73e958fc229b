"""A model larger than its device: accelerate keeps the rest elsewhere, and the streams stay what they were."""

import numpy as np
import pytest

from sae_transfer import activations, models
from sae_transfer.activations import load_model, residual_stream
from test_activations import PROMPTS, params_for, save_checkpoint


@pytest.fixture(scope="module")
def gemma2(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"), "gemma2")


@pytest.mark.parametrize("limit", ["8KB", "14KB"])
def test_layers_that_do_not_fit_are_read_from_disk_with_equal_results(gemma2, limit):
    whole = params_for(gemma2)
    expected = residual_stream(*load_model(whole), PROMPTS, whole)
    params = params_for(gemma2, device_map="auto", max_memory={"cpu": limit})
    model, tokenizer = load_model(params)
    places = set(model.hf_device_map.values())
    assert "disk" in places
    assert ("cpu" in places) == (limit == "14KB")
    assert models.input_device(model).type == "cpu"
    streams = residual_stream(model, tokenizer, PROMPTS, params)
    assert all(np.array_equal(streams[layer], expected[layer]) for layer in expected)
    assert activations.identity(params, model, tokenizer, PROMPTS) == activations.identity(
        whole, *load_model(whole), PROMPTS
    )


def test_a_model_that_fits_is_not_torn_apart(gemma2):
    model, _ = load_model(params_for(gemma2, device_map="auto"))
    assert "disk" not in getattr(model, "hf_device_map", {}).values()

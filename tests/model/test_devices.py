"""A model larger than its device, whose streams stay what they were; and a loop that never waits for the device."""

import numpy as np
import pytest
from test_extraction import PROMPTS, params_for, save_checkpoint
from torch.utils._python_dispatch import TorchDispatchMode

from sae_transfer.model import extraction, loading, tokens
from sae_transfer.model.extraction import residual_stream
from sae_transfer.model.loading import load_model


@pytest.fixture(scope="module")
def gemma2(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"), "gemma2")


def identity(params, model, tokenizer):
    found = tokens.tokenise(model, tokenizer, PROMPTS, params)
    return extraction.identity(params, model, loading.weights_identity(params), PROMPTS, found)


@pytest.mark.parametrize("limit", ["8KB", "14KB"])
def test_layers_that_do_not_fit_are_read_from_disk_with_equal_results(gemma2, limit):
    whole = params_for(gemma2)
    expected = residual_stream(*load_model(whole), PROMPTS, whole)
    params = params_for(gemma2, device_map="auto", max_memory={"cpu": limit})
    model, tokenizer = load_model(params)
    places = set(model.hf_device_map.values())
    assert "disk" in places
    assert ("cpu" in places) == (limit == "14KB")
    assert loading.input_device(model).type == "cpu"
    streams = residual_stream(model, tokenizer, PROMPTS, params)
    assert all(np.array_equal(streams[layer], expected[layer]) for layer in expected)
    assert identity(params, model, tokenizer) == identity(whole, *load_model(whole))


def test_a_model_that_fits_is_not_torn_apart(gemma2):
    model, _ = load_model(params_for(gemma2, device_map="auto"))
    assert "disk" not in getattr(model, "hf_device_map", {}).values()


# What makes the host wait for a GPU: a tensor's value read as a number, a truth value or a shape.
READS = ("_local_scalar_dense", "item.default", "is_nonzero", "nonzero")


class Reads(TorchDispatchMode):
    """Counts the operations that read values back, whichever code asks for them."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, _types, args=(), kwargs=None):
        self.count += any(name in str(function) for name in READS)
        return function(*args, **(kwargs or {}))


def test_extraction_reads_no_value_from_the_device_in_its_loop(gemma2):
    params = params_for(gemma2, tokens_per_batch=60)
    model, tokenizer = load_model(params)
    ids = tokens.tokenise(model, tokenizer, PROMPTS, params).ids
    last = [len(row) - 1 for row in ids]
    with Reads() as reads:
        extraction.streams_of(model, ids, last, params)
    assert reads.count == 0
    handle = model.layers[1].register_forward_hook(lambda _module, _inputs, output: (output > 0).any().item() and None)
    with Reads() as reads:
        extraction.streams_of(model, ids, last, params)
    handle.remove()
    assert reads.count > 3  # the negative control

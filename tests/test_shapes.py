"""Against the real classes of transformers, built without memory from their real configurations."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    LlamaConfig,
    Qwen3Config,
)

from sae_transfer import shapes

DEMO = Path(__file__).parents[1] / "models/demo/model"
SMALL = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 64,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
    "vision_use_head": False,  # as the published Gemma 3 has it
}
CONFIGS = {
    "gemma2": Gemma2Config(**SMALL),
    "gemma3": Gemma3Config(text_config=SMALL, vision_config=VISION, mm_tokens_per_image=4),
    "llama": LlamaConfig(**SMALL, tie_word_embeddings=False),
    "llama, tied": LlamaConfig(**SMALL, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SMALL, tie_word_embeddings=False),
    "gpt2": GPT2Config(vocab_size=50, n_embd=24, n_layer=3, n_head=4, n_positions=64),
    "gpt2, another MLP": GPT2Config(vocab_size=50, n_embd=24, n_layer=3, n_head=4, n_positions=64, n_inner=30),
}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("family", CONFIGS)
def test_parameters_are_those_of_the_real_class(family):
    config = CONFIGS[family]
    shape = shapes.from_config(config.to_dict())
    with torch.device("meta"):
        causal = Gemma3ForConditionalGeneration if family == "gemma3" else AutoModelForCausalLM
        whole = causal(config) if family == "gemma3" else causal.from_config(config)
        text = config.get_text_config()
        text.num_hidden_layers = 2
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:2]
        cut = AutoModel.from_config(text)
    assert shapes.checkpoint_parameters(shape) == count(whole)
    assert shapes.base_parameters(shape, 2) == count(cut)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("google/gemma-2-2b", 2_614_341_888),
        ("google/gemma-2-9b-it", 9_241_705_984),
        ("google/gemma-3-4b-it", 4_300_079_472),
        ("google/gemma-3-12b-it", 12_187_325_040),
        ("google/gemma-3-27b-it", 27_432_406_640),
        ("meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248),
        ("openai-community/gpt2", 124_439_808),
        ("gpt2", 124_439_808),
    ],
)
def test_the_table_gives_the_number_of_parameters_that_the_hub_counts(name, published):
    assert shapes.checkpoint_parameters(shapes.known(name)) == published


@pytest.mark.skipif(not DEMO.is_dir(), reason="models/demo is not pulled: dvc pull models.dvc")
def test_the_demos_shape_counts_what_its_weights_hold():
    shape = shapes.from_config(json.loads((DEMO / "config.json").read_text()))
    with safe_open(DEMO / "model.safetensors", framework="numpy") as weights:
        held = sum(weights.get_tensor(name).size for name in weights.keys())
    assert shapes.checkpoint_parameters(shape) == shapes.base_parameters(shape, 4) == held


def test_an_unknown_model_has_no_shape():
    assert shapes.known("google/t5-small") is None
    assert shapes.from_config({"model_type": "mamba"}) is None


@pytest.mark.parametrize("family", ["gemma2", "llama", "gpt2"])
def test_flops_are_those_that_torch_counts(family):
    from torch.utils.flop_counter import FlopCounterMode

    config = CONFIGS[family]
    shape = shapes.from_config(config.to_dict())
    model = AutoModel.from_config(config, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.ones((2, 7), dtype=torch.long), use_cache=False)
    assert shapes.forward_flops(shape, config.num_hidden_layers, 14, 7) == pytest.approx(
        counter.get_total_flops(), rel=0.01
    )

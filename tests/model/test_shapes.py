"""Against the real classes of transformers, built without memory from their real configurations."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoModel,
    Gemma2Config,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    MambaConfig,
    Qwen3Config,
)

from sae_transfer.core import files
from sae_transfer.core.errors import UserError
from sae_transfer.model import pins, shapes
from sae_transfer.model.model_params import ModelParams

DEMO = Path(__file__).parents[2] / "models/demo/model"
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


def model(name, **more):
    return ModelParams(name=name, layers=(1,), **more)


@pytest.mark.parametrize("family", CONFIGS)
def test_the_parameters_of_the_first_layers_are_those_of_a_model_with_no_more(family):
    text = copy.deepcopy(CONFIGS[family]).get_text_config()
    text.num_hidden_layers = 2
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:2]
    with torch.device("meta"):
        cut = AutoModel.from_config(text)
    assert shapes.shape_of(CONFIGS[family], 2).parameters == count(cut)


def test_the_widths_are_those_that_the_configuration_says():
    shape = shapes.shape_of(CONFIGS["gemma3"], 2)
    assert (shape.d_model, shape.d_mlp, shape.n_heads, shape.d_head, shape.context) == (24, 40, 4, 10, 64)
    shape = shapes.shape_of(CONFIGS["gpt2"], 2)
    assert (shape.d_model, shape.d_mlp, shape.n_heads, shape.d_head, shape.context) == (24, 96, 4, 6, 64)


@pytest.mark.parametrize(
    ("family", "whole", "dtype"),
    [("gemma3", Gemma3ForConditionalGeneration, "bfloat16"), ("gpt2", GPT2LMHeadModel, None)],
)
def test_a_checkpoint_is_as_large_as_the_whole_model_in_its_dtype(family, whole, dtype):
    config = copy.deepcopy(CONFIGS[family])
    config.dtype = dtype
    assert shapes.checkpoint_bytes(config) == count(whole(config)) * (2 if dtype else 4)


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
    stored = 4 if "gpt2" in name else 2
    assert shapes.checkpoint_bytes(shapes.config_of(model(name))) == published * stored


@pytest.mark.skipif(not DEMO.is_dir(), reason="models/demo is not pulled: dvc pull models.dvc")
def test_the_demos_shape_counts_what_its_weights_hold():
    config = shapes.config_of(model(str(DEMO)))
    with safe_open(DEMO / "model.safetensors", framework="numpy") as weights:
        held = sum(weights.get_tensor(name).size for name in weights.keys())
    assert shapes.shape_of(config, 4).parameters == held
    assert shapes.checkpoint_bytes(config) == 4 * held


def test_a_model_in_the_cache_of_the_hub_is_known_by_its_pinned_commit(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    commit = "0123456789abcdef0123456789abcdef01234567"
    CONFIGS["llama"].save_pretrained(tmp_path / "hub/models--org--tiny/snapshots" / commit)
    with pytest.raises(UserError, match="model org/tiny: its shape is not known here"):
        shapes.config_of(model("org/tiny"))
    files.write_json(pins.FILE, {"org/tiny": commit})
    assert shapes.config_of(model("org/tiny")).hidden_size == 24


def test_what_transformers_does_not_know_has_no_shape(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "perceptron"}')
    for name in ("google/t5-small", str(tmp_path)):
        with pytest.raises(UserError, match=f"model {name}: its shape is not known here"):
            shapes.config_of(model(name))


def test_what_is_no_decoder_with_attention_has_no_estimate(tmp_path):
    MambaConfig(vocab_size=50, hidden_size=24, num_hidden_layers=2).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=f"model {tmp_path}: no estimate for a mamba model"):
        shapes.shape_of(shapes.config_of(model(str(tmp_path))), 1)


@pytest.mark.parametrize("family", ["gemma2", "llama", "gpt2"])
def test_flops_are_those_that_torch_counts(family):
    from torch.utils.flop_counter import FlopCounterMode

    config = CONFIGS[family]
    whole = AutoModel.from_config(config, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        whole(input_ids=torch.ones((2, 7), dtype=torch.long), use_cache=False)
    assert shapes.forward_flops(shapes.shape_of(config, config.num_hidden_layers), 14, 7) == pytest.approx(
        counter.get_total_flops(), rel=0.01
    )

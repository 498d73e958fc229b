"""A model without its upper layers is the whole model as far as it goes; what was dropped is never read."""

import json

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from transformers import core_model_loading

import tiny_models as tiny
from sae_transfer.core.errors import UserError
from sae_transfer.model import extraction, loading, whole_model
from sae_transfer.model.tokens import tokenise

TEXTS = tiny.prompts([3, 17, 9, 1])
BATCH_DEPENDS = {"fnet", "phi3_longrope", "convbert"}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("family", sorted(tiny.FAMILIES.keys() - BATCH_DEPENDS))
def test_a_model_cut_short_is_the_whole_model(tmp_path, family):
    """MiniCPM3 and ESMC scale by their number of layers; Gemma 3n and 4 share keys with upper layers."""
    tiny.save(tmp_path, tiny.FAMILIES[family])
    for layer in (1, 3):
        assert (
            tiny.distance(tiny.ours(tmp_path, TEXTS, layer, tokens_per_batch=40), tiny.whole(tmp_path, TEXTS, layer))
            < 1e-5
        )
    model, _ = loading.load_model(tiny.params_of(tmp_path, 1))
    assert len(loading.decoder_layers(model)[1]) == 2
    assert model.config.num_hidden_layers == tiny.N_LAYERS


@pytest.mark.parametrize("family", ["llama", "mixtral", "gemma4_shared", "jamba"])
def test_the_weights_of_dropped_layers_are_never_read(tmp_path, family, monkeypatch):
    tiny.save(tmp_path, tiny.FAMILIES[family])
    read, materialise = [], core_model_loading.spawn_materialize

    def watch(pool, tensor, *words, **options):
        read.append(tensor)
        return materialise(pool, tensor, *words, **options)

    monkeypatch.setattr(core_model_loading, "spawn_materialize", watch)
    counts = []
    for layer in (0, 1, 5):
        read.clear()
        loading.load_model(tiny.params_of(tmp_path, layer))
        counts.append(len(read))
    assert counts[0] < counts[1] < counts[2]
    # Experts lie apart in the file, so that it has more tensors than the model.
    assert counts[2] <= len(load_file(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: hf.AlbertForMaskedLM(hf.AlbertConfig(**tiny.ENCODER, embedding_size=32)),  # one layer for all
        lambda: hf.XLMWithLMHeadModel(
            hf.XLMConfig(vocab_size=36, emb_dim=32, n_layers=4, n_heads=2)
        ),  # parts of layers
        lambda: hf.BartForConditionalGeneration(
            hf.BartConfig(vocab_size=36, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2)
        ),
    ],
)
def test_a_model_that_is_no_stack_of_layers_is_refused_in_one_line(tmp_path, make):
    tiny.save(tmp_path, make)
    with pytest.raises(
        UserError, match=r"not supported: .*Model (keeps its layers in no list|is an encoder with a dec)"
    ):
        loading.load_model(tiny.params_of(tmp_path, 0))


def test_a_model_whose_batches_are_not_first_is_refused(tmp_path):
    tiny.save(
        tmp_path,
        lambda: hf.XLNetLMHeadModel(hf.XLNetConfig(vocab_size=36, d_model=32, n_layer=2, n_head=2, d_inner=32)),
    )
    with pytest.raises(
        UserError, match=r"not supported: XLNetModel fails on .* something else than one residual stream"
    ):
        tiny.ours(tmp_path, TEXTS, 0)


def test_a_config_that_its_class_cannot_build_is_one_line(tmp_path):
    tiny.save(tmp_path, tiny.FAMILIES["llama"])
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "lfm2_moe", "layer_types": None}))
    with pytest.raises(UserError, match=r"model .*: not supported: transformers cannot build it from its config\.json"):
        loading.load_model(tiny.params_of(tmp_path))


REMOTE = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel


class OwnConfig(PretrainedConfig):
    model_type = "own"

    def __init__(self, vocab_size=36, hidden_size=32, num_hidden_layers=6, **kwargs):
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        super().__init__(**kwargs)


class OwnModel(PreTrainedModel):
    config_class, base_model_prefix = OwnConfig, "model"

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        d, n = config.hidden_size, config.num_hidden_layers
        self.blocks = nn.ModuleList(nn.Linear(d, d) for _ in range(n))
        self.post_init()

    def get_input_embeddings(self):
        return self.embed

    def forward(self, input_ids, attention_mask=None, **kwargs):
        x = self.embed(input_ids)
        for block in self.blocks:
            x = x + torch.tanh(block(x)) / self.config.num_hidden_layers
        return x
"""


def test_a_model_with_code_of_its_own_is_cut_too(tmp_path):
    tiny.save_tokenizer(tmp_path)
    (tmp_path / "own.py").write_text(REMOTE)
    mapped = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": mapped}))
    torch.manual_seed(0)
    weights = {"embed.weight": torch.randn(36, 32)}
    weights |= {f"blocks.{i}.weight": torch.randn(32, 32) for i in range(6)} | {
        f"blocks.{i}.bias": torch.randn(32) for i in range(6)
    }
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        UserError, match=r"needs code of its own; read that code, then set model\.trust_remote_code: true"
    ):
        tiny.ours(tmp_path, TEXTS)
    model, _ = loading.load_model(tiny.params_of(tmp_path, 2, trust_remote_code=True))
    assert len(model.blocks) == 3
    linear = torch.nn.functional.linear(
        weights["embed.weight"][7], weights["blocks.0.weight"], weights["blocks.0.bias"]
    )
    found = tiny.ours(tmp_path, ["w1"], 0, trust_remote_code=True)[0]
    np.testing.assert_allclose(found, linear.numpy(), atol=1e-5)  # what its module hands on


@pytest.mark.parametrize(
    "prefix", ["transformer.h.{}.attn.attention.bias", "transformer.h.{}.attn.attention.masked_bias"]
)
def test_old_checkpoints_may_hold_causal_masks(tmp_path, prefix):
    tiny.save(tmp_path, tiny.gpt_neo)
    before = tiny.ours(tmp_path, TEXTS)
    weights = load_file(tmp_path / "model.safetensors")
    mask = torch.tensor(-1e9) if "masked" in prefix else torch.ones(1, 1, 64, 64, dtype=torch.bool)
    weights |= {prefix.format(layer): mask.clone() for layer in range(tiny.N_LAYERS)}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    assert (tiny.ours(tmp_path, TEXTS) == before).all()


def test_a_bias_that_the_class_does_not_know_is_no_mask(tmp_path):
    tiny.save(tmp_path, tiny.gpt_neo)
    weights = load_file(tmp_path / "model.safetensors")
    weights["transformer.h.1.attn.attention.q_proj.bias"] = torch.ones(tiny.WIDTH)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        UserError, match=r"not supported: transformer\.h\.1\.attn\.attention\.q_proj\.bias in the weights"
    ):
        loading.load_model(tiny.params_of(tmp_path))


def test_an_adapter_is_refused_that_transformers_would_pass_over(tmp_path):
    tiny.save(tmp_path, tiny.FAMILIES["llama"])
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="not supported: an adapter; merge it into the weights"):
        loading.load_model(tiny.params_of(tmp_path))


def test_the_whole_model_is_compared_with_where_it_fits(tmp_path, monkeypatch):
    tiny.save(tmp_path, tiny.FAMILIES["minicpm3"])
    params = tiny.params_of(tmp_path)
    model, tokenizer = loading.load_model(params)
    found = tokenise(model, tokenizer, TEXTS, params)
    assert whole_model.distance(model, found, params) < 1e-6
    with torch.no_grad():
        model.layers[2].mlp.up_proj.weight.mul_(1.01)  # as a name that we map wrongly would
    with pytest.raises(
        UserError, match=r"not supported: MiniCPM3Model up to layer 3 of layers differs from the whole model"
    ):
        whole_model.distance(model, found, params)
    monkeypatch.setattr(whole_model, "available_memory", lambda: 1000)
    assert whole_model.distance(model, found, params) is None


def test_the_active_stream_of_gemma_3n_is_read(tmp_path):
    tiny.save(tmp_path, tiny.gemma3n)
    params = tiny.params_of(tmp_path)
    model, tokenizer = loading.load_model(params)
    assert extraction.residual_stream(model, tokenizer, TEXTS, params)[3].shape == (len(TEXTS), tiny.WIDTH)

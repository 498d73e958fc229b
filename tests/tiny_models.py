"""Tiny random models of many families as checkpoints, and the oracle: the whole model, one prompt at a time."""

import numpy as np
import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, PreTrainedTokenizerFast

from sae_transfer.model.extraction import residual_stream
from sae_transfer.model.loading import decoder_layers, load_model
from sae_transfer.model.model_params import ModelParams

WORDS = [f"w{i}" for i in range(30)]
VOCABULARY = {word: i for i, word in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", "[CLS]", "[SEP]", *WORDS])}
WIDTH, N_LAYERS = 32, 6
SHAPE = {
    **{"vocab_size": len(VOCABULARY), "hidden_size": WIDTH, "intermediate_size": WIDTH, "num_attention_heads": 2},
    **{"num_hidden_layers": N_LAYERS, "max_position_embeddings": 64, "initializer_range": 0.3},
    **{"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1},
}
GROUPED = SHAPE | {"num_key_value_heads": 2}
ENCODER = {key: value for key, value in SHAPE.items() if not key.endswith("token_id")}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 16}
PER_LAYER = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": len(VOCABULARY), "sliding_window": 4}
KINDS = ["sliding_attention", "full_attention"] * (N_LAYERS // 2)
LONGROPE = {
    **{"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [8.0] * 8, "factor": 8.0},
    **{"original_max_position_embeddings": 32, "partial_rotary_factor": 1.0},
}
PLAIN = {"vocab_size": len(VOCABULARY), "hidden_size": WIDTH}


def phi3():
    sizes = GROUPED | {"max_position_embeddings": 256, "original_max_position_embeddings": 32}
    return hf.Phi3ForCausalLM(hf.Phi3Config(**sizes, rope_parameters=LONGROPE))


def gemma4(shared):
    sizes = SHAPE | {"num_key_value_heads": 1, "head_dim": 16, "layer_types": KINDS, "num_kv_shared_layers": shared}
    return hf.Gemma4ForCausalLM(hf.Gemma4TextConfig(**sizes, **PER_LAYER))


def gemma3n():
    sizes = GROUPED | {"head_dim": 16, "layer_types": KINDS, "num_kv_shared_layers": 3, "laurel_rank": 4}
    text = hf.Gemma3nTextConfig(**sizes, **PER_LAYER, activation_sparsity_pattern=[0.0] * N_LAYERS)
    return hf.Gemma3nForCausalLM(text)


def gpt_neo():
    size = {"num_layers": N_LAYERS, "num_heads": 2, "attention_types": [[["global", "local"], N_LAYERS // 2]]}
    return hf.GPTNeoForCausalLM(
        hf.GPTNeoConfig(**PLAIN, **size, window_size=4, max_position_embeddings=64, bos_token_id=2, eos_token_id=1)
    )


FAMILIES = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**GROUPED)),
    "minicpm3": lambda: hf.MiniCPM3ForCausalLM(hf.MiniCPM3Config(**GROUPED, **LATENT)),
    "esmc": lambda: hf.EsmcForMaskedLM(hf.EsmcConfig(**SHAPE)),
    "gemma3n": gemma3n,
    "gemma4": lambda: gemma4(0),
    "gemma4_shared": lambda: gemma4(3),
    "mamba": lambda: hf.MambaForCausalLM(hf.MambaConfig(**PLAIN, num_hidden_layers=N_LAYERS, state_size=8)),
    "jamba": lambda: hf.JambaForCausalLM(
        hf.JambaConfig(**GROUPED, mamba_d_state=8, num_experts=2, use_mamba_kernels=False)
    ),
    "recurrent_gemma": lambda: hf.RecurrentGemmaForCausalLM(
        hf.RecurrentGemmaConfig(**GROUPED, lru_width=WIDTH, attention_window_size=4)
    ),
    "zamba2": lambda: hf.Zamba2ForCausalLM(  # its upper layers have the weights of lower ones
        hf.Zamba2Config(
            **GROUPED,
            **{
                "layers_block_type": ["mamba", "hybrid"] * 3,
                "mamba_d_state": 8,
                "n_mamba_heads": 4,
                "mamba_headdim": 16,
            },
            **{"chunk_size": 8, "use_mamba_kernels": False, "adapter_rank": 4},
        )
    ),
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**GROUPED, num_local_experts=4)),
    "gpt_neo": gpt_neo,
    "gpt_neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**SHAPE)),
    "opt": lambda: hf.OPTForCausalLM(hf.OPTConfig(**SHAPE, ffn_dim=WIDTH, word_embed_proj_dim=WIDTH)),
    "openai_gpt": lambda: hf.OpenAIGPTLMHeadModel(
        hf.OpenAIGPTConfig(vocab_size=len(VOCABULARY), n_embd=WIDTH, n_layer=N_LAYERS, n_head=2, n_positions=64)
    ),
    "distilbert": lambda: hf.DistilBertForMaskedLM(
        hf.DistilBertConfig(vocab_size=len(VOCABULARY), dim=WIDTH, hidden_dim=WIDTH, n_layers=N_LAYERS, n_heads=2)
    ),
    "electra": lambda: hf.ElectraForPreTraining(hf.ElectraConfig(**ENCODER, embedding_size=WIDTH)),
    "modernbert": lambda: hf.ModernBertForMaskedLM(
        hf.ModernBertConfig(**ENCODER, pad_token_id=0, cls_token_id=4, sep_token_id=5)
    ),
    "smolvlm": lambda: hf.SmolVLMForConditionalGeneration(
        hf.SmolVLMConfig(
            text_config={"model_type": "llama", **GROUPED},
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
            },
        )
    ),
    "phi3_longrope": phi3,
    "fnet": lambda: hf.FNetForMaskedLM(
        hf.FNetConfig(**{key: value for key, value in ENCODER.items() if key != "num_attention_heads"})
    ),
    "convbert": lambda: hf.ConvBertForMaskedLM(hf.ConvBertConfig(**ENCODER, embedding_size=WIDTH)),
}


def prompts(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=length)) for length in lengths]


def save_tokenizer(folder, single="<bos> $A", special=(("<bos>", 2),), **options):
    """Word-level, with what `single` puts around a text."""
    core = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if single:
        core.post_processor = processors.TemplateProcessing(single=single, special_tokens=list(special))
    named = {"unk_token": "<unk>", "eos_token": "<eos>", "pad_token": "<pad>", "bos_token": "<bos>"} | options
    known = {key: value for key, value in named.items() if value is not None}
    PreTrainedTokenizerFast(tokenizer_object=core, **known).save_pretrained(folder)


def save(folder, make, **tokenizer_options):
    """A checkpoint whose norms and biases are not what a new model has, so that none can be lost unseen."""
    torch.manual_seed(7)
    model = make if isinstance(make, torch.nn.Module) else make()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name.lower() or name.endswith("bias"):
                weight.add_(0.2 * torch.randn_like(weight))
    model.float().save_pretrained(folder)
    save_tokenizer(folder, **tokenizer_options)
    return folder


def params_of(folder, layer=3, **options):
    return ModelParams(**({"name": str(folder), "layers": (layer,), "device": "cpu"} | options))


def ours(folder, texts, layer=3, **options):
    params = params_of(folder, layer, **options)
    return residual_stream(*load_model(params), texts, params)[layer]


def whole(folder, texts, layer=3):
    """What the layer of the whole model hands on after the last token, by transformers alone."""
    model = AutoModel.from_pretrained(folder, dtype="float32").eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    text = getattr(model, "language_model", getattr(model, "text_model", model))
    caught = []

    def keep(_module, _inputs, output):
        hidden = output[0] if isinstance(output, tuple | list) else output
        caught.append((hidden[0] if hidden.ndim == 4 else hidden)[0])  # Gemma 3n's first stream is the active one

    decoder_layers(text)[1][layer].register_forward_hook(keep)
    rows = []
    for prompt in texts:
        with torch.no_grad():
            ids = tokenizer(prompt, return_tensors="pt").input_ids
            model(input_ids=ids)
        rows.append(caught.pop()[ids.shape[1] - 1].numpy())
    return np.stack(rows)


def distance(found, expected):
    """The largest relative distance of a row."""
    return float((np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max())

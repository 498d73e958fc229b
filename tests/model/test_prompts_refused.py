"""Prompts of which the model would not see what they say, and the token that is read in those that it sees."""

import numpy as np
import pytest
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import tiny_models as tiny
from sae_transfer.core.errors import UserError
from sae_transfer.model import extraction, loading, tokens, verbal

BERT = {"single": "[CLS] $A [SEP]", "special": (("[CLS]", 4), ("[SEP]", 5)), "bos_token": None}
BERT |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
EOS = {"single": "<bos> $A <eos>", "special": (("<bos>", 2), ("<eos>", 1))}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("llama"), tiny.FAMILIES["llama"])


@pytest.fixture(scope="module")
def loaded(llama):
    return loading.load_model(tiny.params_of(llama))


def tokenised(loaded, prompts, tokenizer=None, **options):
    model, own = loaded
    return tokens.tokenise(model, tokenizer or own, prompts, tiny.params_of("m", **options))


def word_level(vocabulary, **named):
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, **named)


def byte_pairs(letters):
    """A vocabulary without unknown words, which drops what it lacks."""
    core = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    return PreTrainedTokenizerFast(tokenizer_object=core)


def test_prompts_of_unknown_words_are_refused_beyond_the_stated_share(loaded):
    known = "w1 w2 w3 w4 w5 w6 w7 w8 w9 "
    assert tokenised(loaded, [known + "zebra", known + "w1"]).unknown == 1  # of 20
    with pytest.raises(UserError, match=r"15% of the prompts' tokens are unknown \(at most 10%\)"):
        tokenised(loaded, [known + "zebra", "zebra horse " + known[3:]])


def test_letters_that_a_tokenizer_drops_are_unknown_too(loaded):
    tokenizer = byte_pairs("abcdefghij ")
    assert tokenised(loaded, ["abc def ghi jab"], tokenizer).ids == [[0, 1, 2, 10, 3, 4, 5, 10, 6, 7, 8, 10, 9, 0, 1]]
    with pytest.raises(UserError, match="27% of the prompts' characters have no token"):
        tokenised(loaded, ["abc xyz zab"], tokenizer)
    with pytest.raises(UserError, match="row 1: no token for any of its text"):
        tokenised(loaded, ["abc", "xyz"], tokenizer)


def test_different_prompts_with_the_same_tokens_are_refused(loaded):
    known = " w1" * 30
    with pytest.raises(UserError, match="rows 0 and 2: different prompts have the same tokens"):
        tokenised(loaded, [f"zebra{known}", "w2", f"horse{known}"])
    assert (
        tokenised(loaded, ["w1  w2", "w1 w2", "w1\nw2 "]).ids == [[2, 7, 8]] * 3
    )  # white space is the tokenizer's to drop


def test_prompts_that_are_the_same_once_they_are_cut_are_refused(loaded):
    same = " ".join(["w1"] * 63)
    assert tokenised(loaded, [f"w2 w3 {same}", f"w4 w5 {same[3:]} w6"], truncate=True).truncated == 2
    with pytest.raises(UserError, match="rows 0 and 1: different prompts have the same tokens once they are cut"):
        tokenised(loaded, [f"w2 w3 {same}", f"w4 w5 {same}"], truncate=True)


@pytest.mark.parametrize(
    ("text", "token"), [("w1 <eos> w2", "<eos>"), ("<pad>", "<pad>"), ("w1 <bos> w2", "<bos>"), ("w3 <eos>", "<eos>")]
)
@pytest.mark.parametrize("chat", [False, True])
def test_control_tokens_that_come_from_a_text_are_refused(llama, text, token, chat):
    model, tokenizer = loading.load_model(tiny.params_of(llama))
    tokenizer.chat_template = "{{ bos_token }} {{ messages[0]['content'] }} w1"
    with pytest.raises(UserError, match=f"row 1: (the prompt's text becomes the control token {token}|2 BOS tokens)"):
        tokenised((model, tokenizer), ["w1", text], chat_template=chat)


def test_an_unknown_word_that_becomes_eos_is_a_control_token(loaded):
    tokenizer = word_level({"<unk>": 0, "w1": 1, "w2": 2}, unk_token="<unk>", eos_token="<unk>", bos_token="<unk>")
    with pytest.raises(UserError, match="row 1: the prompt's text becomes the control token <unk>"):
        tokenised(loaded, ["w1 w2", "w1 zebra"], tokenizer)


def test_tokens_of_the_chat_template_are_control_tokens(llama):
    """Qwen's <think> is no special token in its file."""
    model, tokenizer = loading.load_model(tiny.params_of(llama))
    tokenizer.add_tokens(["w28"])
    tokenizer.reference = None
    assert tokenised((model, tokenizer), ["w1 w28"]).ids  # means nothing to a model without a template
    tokenizer.chat_template = "{{ bos_token }} {{ messages[0]['content'] }} w28"
    with pytest.raises(UserError, match="row 0: the prompt's text becomes the control token w28"):
        tokenised((model, tokenizer), ["w1 w28 w2"])


def test_half_a_character_is_one_line(loaded):
    with pytest.raises(UserError, match=r"row 1: half of a character \(a lone surrogate\) in the prompt"):
        tokenised(loaded, ["w1", "w2 \ud83d"])


# What a tokenizer appends


def test_last_is_read_before_what_a_decoders_tokenizer_appends(tmp_path, llama):
    texts = tiny.prompts([4, 9, 2])
    with_eos = tiny.save(tmp_path, tiny.FAMILIES["llama"], **EOS)
    params = tiny.params_of(with_eos)
    model, tokenizer = loading.load_model(params)
    found = tokens.tokenise(model, tokenizer, texts, params)
    assert [ids[-1] for ids in found.ids] == [1] * 3
    assert found.at == [len(ids) - 2 for ids in found.ids]
    streams = extraction.residual_stream(model, tokenizer, texts, params)[3]
    np.testing.assert_allclose(streams, tiny.ours(llama, texts), atol=1e-5)  # the same weights, no EOS


def test_an_encoder_is_read_at_its_closing_token(tmp_path):
    tiny.save(tmp_path, hf.BertForMaskedLM(hf.BertConfig(**tiny.ENCODER)), **BERT)
    params = tiny.params_of(tmp_path)
    found = tokens.tokenise(*loading.load_model(params), ["w1 w2"], params)
    assert (found.ids, found.at) == ([[4, 7, 8, 5]], [3])


def test_a_decoder_with_an_encoders_tokenizer_is_read_before_sep(tmp_path):
    config = hf.ModernBertDecoderConfig(**tiny.ENCODER, pad_token_id=0, cls_token_id=4, sep_token_id=5)
    tiny.save(tmp_path, hf.ModernBertDecoderForCausalLM(config), **BERT)
    params = tiny.params_of(tmp_path)
    found = tokens.tokenise(*loading.load_model(params), ["w1 w2"], params)
    assert (found.ids, found.at) == ([[4, 7, 8, 5]], [2])


def test_the_odds_are_those_before_what_the_tokenizer_appends(tmp_path, llama):
    texts = tiny.prompts([4, 9, 2, 9])
    with_eos = tiny.save(tmp_path, tiny.FAMILIES["llama"], **EOS)

    def odds(folder):
        params = tiny.params_of(folder, position="last_content")
        model, tokenizer = loading.load_causal_model(params)
        return verbal.answering_log_odds(model, tokenizer, texts, [7, 9], params)

    np.testing.assert_allclose(odds(with_eos), odds(llama), atol=1e-5)


@pytest.mark.parametrize(
    "model", [lambda: hf.BertForMaskedLM(hf.BertConfig(**tiny.ENCODER)), tiny.FAMILIES["modernbert"]]
)
def test_a_model_that_sees_later_words_has_no_next_one(tmp_path, model):
    tiny.save(tmp_path, model(), **BERT)
    params = tiny.params_of(tmp_path)
    with pytest.raises(UserError, match=r"not supported: .*; set verbal\.abstaining: \[\]$"):
        verbal.answering_log_odds(*loading.load_causal_model(params), ["w1 w2"], [7], params)


def test_a_bert_that_was_made_a_decoder_has_a_next_word(tmp_path):
    config = hf.BertConfig(**tiny.ENCODER, is_decoder=True)
    tiny.save(tmp_path, hf.BertLMHeadModel(config), **BERT)
    params = tiny.params_of(tmp_path)
    assert np.isfinite(verbal.answering_log_odds(*loading.load_causal_model(params), ["w1 w2"], [7], params)).all()


@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_with_vision_is_asked_through_its_own_head(tmp_path, tied):
    text = {"model_type": "cohere2", **tiny.GROUPED, "head_dim": 16}  # whose own class would scale the logits
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"model_type": "siglip_vision_model", "image_size": 16, "patch_size": 8}
    config = hf.AyaVisionConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied)
    whole = hf.AyaVisionForConditionalGeneration(config).eval()
    tiny.save(tmp_path, whole)
    params, texts = tiny.params_of(tmp_path), tiny.prompts([4, 9])
    model, tokenizer = loading.load_causal_model(params)
    found = verbal.answering_log_odds(model, tokenizer, texts, [7, 9], params)
    for text, odds in zip(texts, found, strict=True):
        p = (
            whole(input_ids=tokenizer(text, return_tensors="pt").input_ids)
            .logits[0, -1]
            .double()
            .softmax(0)[[7, 9]]
            .sum()
        )
        assert odds == pytest.approx(float((1 - p).log() - p.log()), abs=1e-5)


# BOS and context


def test_a_tokenizer_without_bos_says_so_in_the_identity(tmp_path):
    folder = tiny.save(tmp_path, tiny.FAMILIES["llama"], single=None, bos_token=None)
    params = tiny.params_of(folder)
    model, tokenizer = loading.load_model(params)
    found = tokens.tokenise(model, tokenizer, ["w1"], params)
    assert (found.adds_bos, found.has_bos) == (False, False)
    weights = loading.weights_identity(params)
    assert extraction.identity(params, model, weights, ["w1"], found)["adds_bos"] is None


def test_a_chat_template_without_bos_is_mended_by_prepend_bos(llama):
    model, tokenizer = loading.load_model(tiny.params_of(llama))
    tokenizer.chat_template = "{{ messages[0]['content'] }} w9"
    with pytest.raises(
        UserError, match=r"row 0: 0 BOS tokens .*; set model\.prepend_bos: true, or model\.chat_template: f"
    ):
        tokenised((model, tokenizer), ["w1"], chat_template=True)
    assert tokenised((model, tokenizer), ["w1"], chat_template=True, prepend_bos=True).ids == [[2, 7, 15]]


@pytest.mark.parametrize(
    "model",
    [
        lambda **size: hf.RobertaForMaskedLM(hf.RobertaConfig(**size, pad_token_id=1)),
        lambda **size: hf.XLMRobertaForMaskedLM(hf.XLMRobertaConfig(**size, pad_token_id=1)),
        lambda **size: hf.CamembertForMaskedLM(hf.CamembertConfig(**size, pad_token_id=1)),
        lambda **size: hf.MPNetForMaskedLM(hf.MPNetConfig(**size, pad_token_id=1)),
        lambda **size: hf.Data2VecTextForMaskedLM(hf.Data2VecTextConfig(**size, pad_token_id=1)),
    ],
)
def test_robertas_kin_has_fewer_positions_than_its_config_says(tmp_path, model):
    size = {key: value for key, value in tiny.ENCODER.items() if key != "pad_token_id"} | {
        "max_position_embeddings": 34
    }
    tiny.save(tmp_path, model(**size), **BERT)
    long = tiny.prompts([50, 30, 3])
    with pytest.raises(UserError, match="row 0: 52 tokens, the model's context has 32"):
        tiny.ours(tmp_path, long)
    assert tiny.distance(tiny.ours(tmp_path, long[1:]), tiny.whole(tmp_path, long[1:])) < 1e-5  # 32 just fit
    assert tiny.ours(tmp_path, long, truncate=True).shape == (3, tiny.WIDTH)

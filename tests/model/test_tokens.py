"""Which token is read, and how many BOS a prompt has, for every family of tokenizers."""

import pytest
from transformers import BertConfig, BertModel, CanineTokenizer, LlamaConfig, LlamaModel

import tiny
from sae_transfer.core.errors import UserError
from sae_transfer.model.model_params import ModelParams
from sae_transfer.model.tokens import tokenise

PROMPTS = [
    "Passage: The model was built in Paris. Question: When was it built?\nAnswer:",
    "the user asks the model",  # words that chat templates use too
    "Is it Zoë's café",
    "model",
]
CHATS = {
    "gemma": ("<bos><start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n", "\n", "<end_of_turn>"),
    "llama": (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "\n",
        "<|eot_id|>",
    ),
}
ADDS_BOS = {"gemma", "llama", "metaspace", "words"}
every_family = pytest.mark.parametrize("family", tiny.TOKENIZERS)


@pytest.fixture(scope="module")
def tokenizers():
    return {family: make() for family, make in tiny.TOKENIZERS.items()}


@pytest.fixture(scope="module")
def model():
    shape = {"hidden_size": 4, "intermediate_size": 4, "num_attention_heads": 1, "num_hidden_layers": 1}
    return LlamaModel(LlamaConfig(vocab_size=1000, max_position_embeddings=300, **shape))


@pytest.fixture(scope="module")
def encoder():
    shape = {"hidden_size": 4, "intermediate_size": 4, "num_attention_heads": 1, "num_hidden_layers": 1}
    return BertModel(BertConfig(vocab_size=1000, **shape))


@pytest.fixture
def tokens(tokenizers, model, encoder):
    def of(family, prompts, chat=None, **options):
        params = ModelParams(name="m", layers=(0,), **options)
        return tokenise(encoder if family == "bert" else model, tokenizers[family], prompts, params, chat)

    return of


def words_at(tokenizer, found):
    """The text of the token that is read, for each prompt."""
    return [tokenizer.decode([ids[at]]) for ids, at in zip(found.ids, found.at, strict=True)]


@every_family
def test_last_is_the_last_token_and_one_bos_comes_first(tokens, tokenizers, family):
    found = tokens(family, PROMPTS)
    bos = tokenizers[family].bos_token_id
    assert found.at == [len(ids) - 1 for ids in found.ids]
    assert found.adds_bos == (family in ADDS_BOS)
    assert [ids.count(bos) for ids in found.ids] == [int(family in ADDS_BOS)] * len(PROMPTS)
    if family == "bert":
        assert words_at(tokenizers[family], found) == ["[SEP]"] * len(PROMPTS)


@every_family
def test_last_content_is_the_token_of_the_last_character(tokens, tokenizers, family):
    last, content = tokens(family, PROMPTS), tokens(family, PROMPTS, position="last_content")
    assert content.ids == last.ids
    assert [a - b for a, b in zip(last.at, content.at, strict=True)] == [int(family == "bert")] * len(PROMPTS)
    if family not in ("words", "bert"):  # these do not know every word
        ends = words_at(tokenizers[family], content)
        assert all(prompt.endswith(end.strip()) for prompt, end in zip(PROMPTS, ends, strict=True))


@every_family
def test_last_content_is_never_white_space(tokens, tokenizers, family):
    plain, trailing = (tokens(family, [text], position="last_content") for text in ("asks a", "asks a \n\n"))
    assert trailing.at == plain.at
    assert trailing.ids[0][: trailing.at[0] + 1] == plain.ids[0][: plain.at[0] + 1]


@pytest.mark.parametrize("family", ["gemma", "llama"])
def test_a_character_of_several_tokens_is_read_at_its_last(tokens, tokenizers, family):
    found = tokens(family, ["so 🙃"], position="last_content")  # in no vocabulary: its bytes are
    assert found.at[0] == len(found.ids[0]) - 1
    assert tokenizers[family].decode(found.ids[0]).endswith("🙃")


@pytest.mark.parametrize("family", CHATS)
def test_a_chat_has_one_bos_and_ends_where_the_answer_begins(tokens, tokenizers, family):
    text, end, _ = CHATS[family]
    found = tokens(family, PROMPTS, chat_template=True)
    assert [tokenizers[family].decode(ids) for ids in found.ids] == [text.format(prompt) for prompt in PROMPTS]
    assert [ids.count(tokenizers[family].bos_token_id) for ids in found.ids] == [1] * len(PROMPTS)
    assert found.at == [len(ids) - 1 for ids in found.ids]
    assert all(word.endswith(end) for word in words_at(tokenizers[family], found))
    assert found.chat == len(PROMPTS)


@pytest.mark.parametrize("family", CHATS)
def test_the_last_content_of_a_chat_is_before_its_closing_tokens(tokens, tokenizers, family):
    closing = tokenizers[family].convert_tokens_to_ids(CHATS[family][2])
    padded = [f" {prompt} \n" for prompt in PROMPTS]  # the template strips it
    for prompts in (PROMPTS, padded):
        found = tokens(family, prompts, chat_template=True, position="last_content")
        assert [ids[at + 1] for ids, at in zip(found.ids, found.at, strict=True)] == [closing] * len(PROMPTS)
    # The negative control: it is not the end.
    assert all(at < len(ids) - 2 for ids, at in zip(found.ids, found.at, strict=True))


def test_each_prompt_can_be_chat_or_plain(tokens):
    chats, plain = (tokens("gemma", PROMPTS, chat_template=chat, position="last_content") for chat in (True, False))
    mixed = tokens("gemma", PROMPTS, [True, False, False, True], position="last_content")
    for row, source in enumerate((chats, plain, plain, chats)):
        assert (mixed.ids[row], mixed.at[row]) == (source.ids[row], source.at[row])
    assert mixed.chat == 2


def test_a_template_that_asks_for_chat_needs_a_model_with_one(tokens):
    with pytest.raises(UserError, match=r"no chat template; set model\.chat_template: false"):
        tokens("gpt2", ["a", "b"], [False, True])


def test_a_chat_template_that_changes_the_prompt_is_refused(tokens, tokenizers, monkeypatch):
    monkeypatch.setattr(tokenizers["gemma"], "chat_template", tiny.GEMMA_CHAT.replace("| trim", "| upper"))
    with pytest.raises(UserError, match="row 0: the chat template changes the prompt"):
        tokens("gemma", PROMPTS, chat_template=True)


def test_a_chat_template_that_names_the_date_names_the_same_every_day(tokens, tokenizers, monkeypatch):
    today = "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    dated = tiny.LLAMA_CHAT.replace("{% for", today + "{{ 'Today: ' + date_string }}{% for", 1)
    monkeypatch.setattr(tokenizers["llama"], "chat_template", dated)
    found = tokens("llama", ["when"], chat_template=True)
    assert "Today: 26 Jul 2024" in tokenizers["llama"].decode(found.ids[0])


@pytest.mark.parametrize("chat", [False, True])
def test_a_cut_prompt_is_read_at_the_same_token(tokens, chat):
    long = "asks a question " * 80 + "in Paris"
    options = {"chat_template": chat, "position": "last_content"}
    with pytest.raises(UserError, match="context has 300"):
        tokens("llama", [long], **options)
    cut, whole = tokens("llama", [long], truncate=True, **options), tokens("llama", ["in Paris"], **options)
    assert cut.truncated == 1
    assert len(cut.ids[0]) == 300
    back = len(whole.ids[0]) - whole.at[0]
    assert cut.at[0] == 300 - back
    assert cut.ids[0][-back:] == whole.ids[0][-back:]


def test_a_bos_can_be_put_before_gpt2s_prompts(tokens, tokenizers):
    plain, with_bos = tokens("gpt2", PROMPTS), tokens("gpt2", PROMPTS, prepend_bos=True)
    bos = tokenizers["gpt2"].bos_token_id
    assert with_bos.ids == [[bos, *ids] for ids in plain.ids]
    assert with_bos.at == [at + 1 for at in plain.at]
    assert (plain.adds_bos, with_bos.adds_bos) == (False, True)
    assert tokens("gemma", PROMPTS, prepend_bos=True).ids == tokens("gemma", PROMPTS).ids  # never a second one
    with pytest.raises(UserError, match="row 0: 2 BOS tokens"):
        tokens("gpt2", ["the <|endoftext|> user"], prepend_bos=True)
    with pytest.raises(UserError, match=r"its tokenizer has no BOS; set model\.prepend_bos: false"):
        tokens("bert", PROMPTS, prepend_bos=True)


def test_a_tokenizer_that_does_not_know_its_characters_has_no_last_content(model):
    params = ModelParams(name="m", layers=(0,), position="last_content")
    small = LlamaModel(LlamaConfig(vocab_size=2, hidden_size=4, num_attention_heads=1, num_hidden_layers=0))
    with pytest.raises(UserError, match=r"which characters a token stands for; set model\.position: last"):
        tokenise(small, CanineTokenizer(), ["a"], params)

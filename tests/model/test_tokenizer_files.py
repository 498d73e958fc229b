"""tokenizer.json is what a model was trained with: transformers' classes are compared with it, on every prompt."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

import tiny
import tiny_models
from sae_transfer.core.errors import UserError
from sae_transfer.model import loading, tokenizer_files
from sae_transfer.model.tokens import tokenise

TEXTS = [
    "Passage: The model was built in Paris in 1889. Question: When was it built?\nAnswer:",
    " the user  asks in Paris\n\n",
    "Zo\u00eb's caf\u00e9 \u2014 the answer",
]
CLASSES = [None, "LlamaTokenizer", "GPT2Tokenizer", "Qwen2Tokenizer", "BertTokenizer", "GemmaTokenizer", "T5Tokenizer"]
MODELS = [
    "llama",
    "qwen2",
    "qwen3",
    "gemma2",
    "gpt2",
    "bert",
    "mistral",
    "phi3",
    "opt",
    "mpt",
    "deepseek_v3",
    "roberta",
]


def folder_of(tmp_path, family, model_type, kind, **changes):
    tiny.TOKENIZERS[family]().save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    said = json.loads(path.read_text()) | changes
    said.pop("tokenizer_class", None)
    path.write_text(json.dumps(said | ({"tokenizer_class": kind} if kind else {})))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    return tmp_path


def ids_of(tokenizer, special=True):
    return [list(ids) for ids in tokenizer(TEXTS, add_special_tokens=special)["input_ids"]]


@pytest.mark.parametrize("seed", range(25))
def test_any_class_and_model_type_gives_the_ids_of_tokenizer_json(tmp_path, seed):
    rng = np.random.default_rng(seed)
    family, model_type = rng.choice(list(tiny.TOKENIZERS)), str(rng.choice(MODELS))
    folder = folder_of(tmp_path, family, model_type, CLASSES[rng.integers(len(CLASSES))])
    core = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found = tokenizer_files.load(str(folder), {"revision": "main"})
    for special in (True, False):
        expected = [core.encode(text, add_special_tokens=special).ids for text in TEXTS]
        assert ids_of(found, special) == expected


def test_qwen2s_class_alone_would_lose_every_word(tmp_path):
    """The negative control: what AutoTokenizer gives."""
    from transformers import AutoTokenizer

    folder = folder_of(tmp_path, "words", "qwen2", None)
    core = Tokenizer.from_file(str(folder / "tokenizer.json"))
    expected = [core.encode(text).ids for text in TEXTS]
    assert ids_of(AutoTokenizer.from_pretrained(folder)) != expected
    assert ids_of(tokenizer_files.load(str(folder), {"revision": "main"})) == expected


@pytest.mark.parametrize("kind", [None, "LlamaTokenizer"])
@pytest.mark.parametrize(("bos", "eos"), [(True, True), (False, False), (True, False)])
def test_tokenizer_config_may_declare_bos_and_eos(tmp_path, kind, bos, eos):
    folder = folder_of(tmp_path, "metaspace", "llama", kind, add_bos_token=bos, add_eos_token=eos)
    found = tokenizer_files.load(str(folder), {"revision": "main"})
    bare, around = ids_of(found, special=False), ids_of(found)
    assert around in ([[1] * bos + ids + [2] * eos for ids in bare], [[1, *ids] for ids in bare])
    assert tokenizer_files.agree(found, TEXTS)
    assert tokenizer_files.differing(found, TEXTS, [[*ids, 5] for ids in around], special=True) == [0, 1, 2]


def test_a_folder_without_tokenizer_files_is_refused(tmp_path):
    tiny_models.save(tmp_path, tiny_models.FAMILIES["llama"])
    for path in tmp_path.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(UserError, match=r"no tokenizer files \(.*tokenizer\.json.*\); put them beside its weights"):
        loading.load_model(tiny_models.params_of(tmp_path))


def test_a_prompt_that_the_class_splits_otherwise_is_named(tmp_path):
    tiny_models.save(tmp_path, tiny_models.FAMILIES["llama"])
    params = tiny_models.params_of(tmp_path)
    model, tokenizer = loading.load_model(params)
    other = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    other.add_tokens(["w1w2"])  # which tokenizer.json does not know
    other.reference = tokenizer.reference
    assert tokenise(model, tokenizer, ["w1", "w3"], params).ids == [[2, 7], [2, 9]]
    with pytest.raises(
        UserError, match=r"row 1: TokenizersBackend gives other tokens than tokenizer\.json \(1 such rows\)"
    ):
        tokenise(model, other, ["w1", "w1w2 w3"], params)


def test_special_tokens_that_only_the_class_names_keep_their_names(tmp_path):
    """Else BOS would be cut off long prompts."""
    folder = folder_of(tmp_path, "gemma", "gemma2", "LlamaTokenizer")
    said = json.loads((folder / "tokenizer_config.json").read_text())
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        said.pop(name)
    (folder / "tokenizer_config.json").write_text(json.dumps(said | {"tokenizer_class": "GemmaTokenizer"}))
    found = tokenizer_files.load(str(folder), {"revision": "main"})
    assert tokenizer_files.agree(found, TEXTS)
    assert (found.bos_token, found.eos_token) == ("<bos>", "<eos>")

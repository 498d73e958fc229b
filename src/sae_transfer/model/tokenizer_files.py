"""A model's tokenizer, and the tokenizer.json that it must agree with.

transformers rebuilds most tokenizers from their class, and a class may split text otherwise than the file that the
model was trained with. So the file itself, read by the `tokenizers` library, has the last word: `tokens` compares both
on every prompt.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_transfer.core.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What tokenizers differ in: case, accents, white space, line breaks, numbers, code, scripts, joined characters.
SAMPLES = [
    "Passage: The model was built in Paris in 1889. Question: When was it built?\nAnswer:",
    "  two  spaces,\ttab\r\n\nand 12345.67 don't CamelCase snake_case x=[1,2];",
    "Zo\u00eb's caf\u00e9 \u2014 nai\u0308ve \ufb01 \uff21 \u4f60\u597d \u0645\u0631\u062d\u0628\u0627 \U0001f642",
]


def load(name: str, source: Mapping[str, Any]) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder or a hub model; its `reference` is what tokenizer.json says, None where there is none.

    Where transformers' class disagrees with tokenizer.json, the class that takes the file as it is.

    Args:
        name: the folder, or the hub's name.
        source: the arguments of `from_pretrained` that name the commit.

    Raises:
        UserError: there are no files of a tokenizer: transformers would invent one.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    path = file_of(name, "tokenizer.json", source)
    reference = None if path is None else _Reference(path, file_of(name, "tokenizer_config.json", source))
    tokenizer: PreTrainedTokenizerBase | None = None
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **source)
        tokenizer.reference = reference
        fits = agree(tokenizer, SAMPLES)
    except Exception:  # of a class that tokenizer.json does not fit: the tokenizers library raises no narrower one
        if reference is None:
            raise
        fits = False
    if tokenizer is None or not fits:
        plain = PreTrainedTokenizerFast.from_pretrained(name, **source)
        plain.reference = reference
        _name_special_tokens(plain, tokenizer, reference)
        tokenizer = plain
    wanted = {file for file in tokenizer.vocab_files_names.values() if isinstance(file, str)}
    if wanted and reference is None and not any(file_of(name, file, source) for file in sorted(wanted)):
        raise UserError(
            f"model {name}: no tokenizer files ({' or '.join(sorted(wanted))}); put them beside its weights"
        )
    return tokenizer


def _name_special_tokens(plain: Any, known: Any, reference: "_Reference | None") -> None:
    """Gives a tokenizer the names of special tokens that another knows from its class and that tokenizer.json has."""
    for role in ("bos_token", "eos_token", "unk_token", "pad_token", "cls_token", "sep_token", "mask_token"):
        token = None if known is None else getattr(known, role)
        if token and reference and getattr(plain, role) is None and reference.core.token_to_id(token) is not None:
            setattr(plain, role, token)


def agree(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> bool:
    """Whether a tokenizer and its tokenizer.json give the same ids, with and without special tokens."""
    options = {"padding": False, "truncation": False, "verbose": False}
    found = {special: tokenizer(list(texts), add_special_tokens=special, **options) for special in (False, True)}
    return not any(differing(tokenizer, texts, found[special]["input_ids"], special) for special in found)


def differing(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], ids: Sequence[Sequence[int]], special: bool
) -> list[int]:
    """The places of n texts whose `ids` [n] of the tokenizer are others than its files give.

    Where tokenizer_config.json says `add_bos_token` or `add_eos_token`, its special tokens count beside those of
    tokenizer.json: transformers follows the one or the other.
    """
    reference = getattr(tokenizer, "reference", None)
    if reference is None or not texts:
        return []
    places = [i for i, expected in enumerate(reference(texts, special)) if list(ids[i]) != expected]
    declared = _declared(tokenizer, reference) if special and places else None
    if declared is None:
        return places
    cores = reference([texts[i] for i in places], False)
    return [i for i, core in zip(places, cores, strict=True) if list(ids[i]) != [*declared[0], *core, *declared[1]]]


class _Reference:
    """tokenizer.json by the `tokenizers` library alone: texts to ids, nothing padded, nothing cut."""

    def __init__(self, path: Path, config: Path | None) -> None:
        from tokenizers import Tokenizer

        self.core = Tokenizer.from_file(str(path))
        self.core.no_padding()
        self.core.no_truncation()
        self.config = {} if config is None else json.loads(config.read_text("utf-8"))

    def __call__(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        return [found.ids for found in self.core.encode_batch(list(texts), add_special_tokens=special)]


def _declared(tokenizer: "PreTrainedTokenizerBase", reference: _Reference) -> tuple[list[int], list[int]] | None:
    """The special tokens around a text where tokenizer_config.json overrules tokenizer.json; None where it does not."""
    asked = {key: reference.config.get(key) for key in ("add_bos_token", "add_eos_token")}
    if all(value is None for value in asked.values()):
        return None
    ends = (("add_bos_token", tokenizer.bos_token_id), ("add_eos_token", tokenizer.eos_token_id))
    bos, eos = ([token] if asked[key] and token is not None else [] for key, token in ends)
    return bos, eos


def folder_of(name: str, source: Mapping[str, Any]) -> Path:
    """Where a model's files lie: its folder, or that of its commit in the hub's cache."""
    config = file_of(name, "config.json", source)
    assert config is not None
    return config.parent


def file_of(name: str, file: str, source: Mapping[str, Any]) -> Path | None:
    """Where a file of a model lies, in its folder or in the hub's cache; None where the model has no such file."""
    from transformers.utils.hub import cached_file

    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    found = cached_file(name, file, revision=source["revision"], **quiet)
    return None if found is None else Path(found)

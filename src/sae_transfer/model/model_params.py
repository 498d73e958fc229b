"""The sections `model` and `saes` of the params: what is loaded, and how it is run."""

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from sae_transfer.core.params_section import ParamsSection, Place, is_place

HUB_ID = re.compile(r"(?!models/)\w[\w.-]*(/\w[\w.-]*)?")

# Arguments of transformers' `apply_chat_template` itself, which decide what it returns.
OURS = {
    *("conversation", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize", "padding"),
    *("truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"),
    *("sanitize_control_tokens", "messages"),
}


class Weights(ParamsSection):
    """Weights from a folder or from the hub, whose pinned commits stand in the study's folder `root`."""

    _root: Path = PrivateAttr(Path())

    @property
    def root(self) -> Path:
        """The folder of the study that these params are of; by default the working directory."""
        return self._root

    def of_study(self, root: Path, **changed: Any) -> Self:
        """These params as those of a study in a folder, with some values changed."""
        copy = self.model_copy(update=changed)
        copy._root = root
        return copy


class SaeParams(Weights):
    """An SAE on the residual stream after `layer`: a folder that SAELens saved (`path`), or `release` and `id`.

    `override` takes an SAE that was trained on another model or with a BOS that the prompts lack; this is recorded.
    """

    layer: int = Field(ge=0)
    path: Place | None = None
    release: str | None = None
    id: str | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    override: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> "SaeParams":
        if (self.path is None) == (self.release is None) or (self.release is None) != (self.id is None):
            raise ValueError("give either a path, or a release and an id")
        return self


class ModelParams(Weights):
    """The model and how it is run: all of it is part of what identifies an activation.

    `name` is a folder or a hub id, of which the pinned commit is loaded (see `pins`). `position` is explained in
    `tokens`. `device_map: auto` spreads a model larger than the GPU over GPUs, host memory and disk (with accelerate);
    `max_memory` bounds each of them: {"0": 70GiB, cpu: 100GiB}.
    """

    name: str
    revision: str | None = None
    layers: tuple[int, ...] = Field(min_length=1)
    dtype: Literal["float32", "bfloat16"] = "float32"  # never float16: Gemma overflows
    device: str = "auto"
    device_map: Literal["auto"] | None = None
    max_memory: dict[str, str] | None = None
    tokens_per_batch: int = Field(default=8192, gt=0)
    shard_rows: int = Field(default=4096, gt=0)  # prompts that are extracted together, and kept in one file
    chat_template: bool = False
    # what the template lets one choose: {enable_thinking: false}
    chat_template_kwargs: dict[str, bool | int | str] = Field(default_factory=dict)
    position: Literal["last", "last_content"] = "last"
    prepend_bos: bool = False  # before prompts to which the tokenizer adds none (GPT-2), for SAEs that were trained so
    truncate: bool = False
    trust_remote_code: bool = False

    @property
    def folder(self) -> Path | None:
        """The folder that `name` means; None for a hub id."""
        path = Path(self.name)
        return path if path.is_dir() or not HUB_ID.fullmatch(self.name) else None

    @field_validator("chat_template_kwargs")
    @classmethod
    def _arguments_of_the_template(cls, arguments: dict[str, bool | int | str]) -> dict[str, bool | int | str]:
        if ours := OURS & arguments.keys():
            raise ValueError(f"{', '.join(sorted(ours))}: no argument of a template; delete it")
        return arguments

    @field_validator("name")
    @classmethod
    def _is_place(cls, name: str) -> str:
        is_place(Path(name))
        return name

    @field_validator("layers")
    @classmethod
    def _layers_are_indices(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if min(layers) < 0:
            raise ValueError("layers are counted from 0 upwards")
        return tuple(sorted(set(layers)))

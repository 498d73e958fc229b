"""The datasets that other people publish: the addresses of the originals, their checksums and their licences."""

from dataclasses import dataclass
from pathlib import Path

from sae_transfer.core import files
from sae_transfer.core.errors import UserError, closest


@dataclass(frozen=True, slots=True)
class File:
    """One file of a dataset.

    `digest` is `sha256:<hex>`, or `git:<hex>` where only git's object id is known: the sha1 of `blob <size>`,
    a zero byte and the content.
    """

    name: str
    url: str
    digest: str


@dataclass(frozen=True, slots=True)
class Source:
    """A published dataset: its files, and what must be said of it wherever it goes."""

    title: str
    home: str
    licence: str
    citation: str
    files: tuple[File, ...]


EXTERNAL = Path("data/external")
_SQUAD = "https://rajpurkar.github.io/SQuAD-explorer/dataset"
_IDK = "https://raw.githubusercontent.com/CogComp/IDK-beyond-SQuAD2.0/main/DATA/ACE-whQA"
_BOOLQ = "https://raw.githubusercontent.com/CogComp/Yes-No-or-IDK/master/DATA/BoolQ_3L"


def _file(folder: str, name: str, digest: str) -> File:
    return File(name, f"{folder}/{name}", digest)


SOURCES: dict[str, Source] = {
    "squad": Source(
        "SQuAD 2.0",
        "https://rajpurkar.github.io/SQuAD-explorer/",
        "CC BY-SA 4.0",
        "Rajpurkar, Jia and Liang (2018): Know What You Don't Know: Unanswerable Questions for SQuAD. ACL.",
        (
            _file(
                _SQUAD,
                "train-v2.0.json",
                "sha256:68dcfbb971bd3e96d5b46c7177b16c1a4e7d4bdef19fb204502738552dede002",
            ),
            _file(
                _SQUAD,
                "dev-v2.0.json",
                "sha256:80a5225e94905956a6446d296ca1093975c4d3b3260f1d6c8f68bc2ab77182d8",
            ),
        ),
    ),
    "idk": Source(
        "IDK (ACE-whQA)",
        "https://github.com/CogComp/IDK-beyond-SQuAD2.0",
        "its repository states the terms; read them there before passing the files on",
        "Sulem, Hay and Roth (2021): Do We Know What We Don't Know? Studying Unanswerable Questions beyond SQuAD 2.0. "
        "Findings of EMNLP.",
        (
            _file(
                _IDK,
                "ACE-whQA-has-answer.json",
                "sha256:083020e7217bd31f9ea85004a7bc30d7fb40726d9c412ba5861948156ee1c4f5",
            ),
            _file(
                _IDK,
                "ACE-whQA-IDK-non-competitive.json",
                "sha256:9393be76b1239bfbb75ea7253ecdc6530986100f1020883e2122dd975a08a6da",
            ),
            _file(
                _IDK,
                "ACE-whQA-IDK-competitive.json",
                "sha256:2f02ac0b25d07bf4c55465ecff308b6fdae31284d8d341b1fd3e2b114b381a62",
            ),
        ),
    ),
    "boolq": Source(
        "BoolQ_3L",
        "https://github.com/CogComp/Yes-No-or-IDK",
        "CC BY-SA 3.0",
        "Sulem, Hay and Roth (2022): Yes, No or IDK: The Challenge of Unanswerable Yes/No Questions. NAACL.",
        (
            _file(_BOOLQ, "train_full.json", "git:02377fe1323b4e5d5fb93e35f534124a9db9b22b"),
            _file(
                _BOOLQ,
                "dev_full.json",
                "sha256:01861f78f9af6b224f6edcee9dd114c911638ee4d403463c2ebc57a6e4603a09",
            ),
        ),
    ),
}


def named(name: str) -> Source:
    """The source of dataset `name`.

    Raises:
        UserError: no such dataset (with the closest names).
    """
    if name not in SOURCES:
        raise UserError(f"dataset {name}: not one that can be fetched; {closest(name, SOURCES)}")
    return SOURCES[name]


def notice(source: Source) -> str:
    """What lies beside the files as README.md: where they come from, their licence, their checksums."""
    listed = "".join(
        f"- `{file.name}`: {file.url}, {file.digest.replace('git:', 'git blob ')}\n" for file in source.files
    )
    return (
        f"# {source.title}\n\nHome: {source.home}\nLicence: {source.licence}\nCite: {source.citation}\n\n"
        f"The originals, unchanged, as `sae-transfer data fetch` brings them:\n{listed}"
    )


def restore_command(path: Path) -> str | None:
    """Which command brings a missing file of these datasets, or one that the project ships; None of any other."""
    name = path.parts[2] if path.parts[:2] == EXTERNAL.parts and len(path.parts) > 2 else None
    return f"`sae-transfer data fetch {name}` brings it" if name in SOURCES else files.restore_command(path)

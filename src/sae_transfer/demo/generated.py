"""The datasets that come from generators, as the JSONL files that the loader `table` reads."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from sae_transfer.data.example import Example
from sae_transfer.data.generators import celebrity, equation
from sae_transfer.demo import datasets
from sae_transfer.demo.world import DOMAINS

DEMO_ROWS = 480
PAPER_ROWS = {"equation": 2000, "celebrity": 600}  # arXiv 2502.19964


def everything(seed: int) -> Iterator[tuple[Path, list[Example]]]:
    """Each file and its rows: data/demo/<domain>.jsonl, data/paper/equation.jsonl and data/paper/celebrity.jsonl."""
    for domain in DOMAINS:
        yield Path(f"data/demo/{domain}.jsonl"), datasets.generate(domain, DEMO_ROWS, seed)
    yield Path("data/paper/equation.jsonl"), equation.generate(PAPER_ROWS["equation"], seed)
    yield Path("data/paper/celebrity.jsonl"), celebrity.generate(PAPER_ROWS["celebrity"], seed)


def as_jsonl(rows: Sequence[Example]) -> str:
    """One JSON object a line, with what the loader `table` reads; the file's name says `source`."""
    left_out = ("source", "finished")
    records = ({key: value for key, value in asdict(row).items() if key not in left_out} for row in rows)
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)

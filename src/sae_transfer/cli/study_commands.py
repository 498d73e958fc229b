"""`sae-transfer check` and `summary`: what looks after a study."""

from typing import Annotated

import typer

from sae_transfer.core import paths

All = Annotated[bool, typer.Option("--all", help="Every space and kind of probe, and every warning.")]


def check() -> None:
    """Check a study before it runs.

    It looks at params.yaml, datasets, local models and SAEs, and at rows that datasets share.
    """
    from sae_transfer.pipeline import checks
    from sae_transfer.pipeline.params import Params

    for notice in checks.check(Params.read()):
        print(f"{notice.severity}: {notice.sentence}")
    print("params.yaml is in order")


def summary(every: All = False) -> None:
    """Say what the last run found.

    At most ten lines, and where to look.
    """
    from sae_transfer.pipeline.study import Study

    study = Study.open(".")
    found = study.verdict()
    print(*found.lines, sep="\n")
    if every:
        print()
        for row in study.table("headline").to_dict("records"):
            inside, outside = (_decimals(row[name]) for name in ("auc_in_domain", "auc_ood"))
            print(f"{row['space']:>12}  {row['key']:<26} mean AUC in domain {inside}, out of domain {outside}")
        print()
        print(*(f"{notice.severity}: {notice.sentence}" for notice in found.warnings), sep="\n")
    print(f"Open {paths.REPORT / 'index.html'} in a browser; `sae-transfer summary --all` lists every probe.")


def _decimals(score: float) -> str:
    return "not tested" if score != score else f"{score:.3f}"

"""`sae-transfer check` and `summary`: what looks after a study."""

from sae_transfer.cli.data_commands import samples_shown
from sae_transfer.core import files, paths


def check() -> None:
    """Check a study before it runs: params.yaml, datasets, local models and SAEs, and rows that datasets share."""
    from sae_transfer.pipeline import checks, presets
    from sae_transfer.pipeline.params import Params

    params = Params.read()
    notes = checks.check(params)
    for name, samples in checks.samples(params).items():
        print("\n  ".join([name, *samples_shown(samples)]))
    notes += [
        f"{name} is unpinned: another run may take another version; `sae-transfer preset pin` pins it"
        for name in presets.unpinned(params)
    ]
    for note in notes:
        print(note)
    print("params.yaml is in order")


def summary() -> None:
    """Say in a few lines what the last `dvc repro` found, and where to look."""
    for space, kinds in files.read_json(paths.RESULTS / "metrics.json").items():
        for kind, scores in kinds.items():
            if "auc_ood" in scores:
                inside, outside = (_decimals(scores[name]) for name in ("auc_in_domain", "auc_ood"))
                print(f"{space:>12}  {kind:<16} mean AUC in domain {inside}, out of domain {outside}")
    print(f"\nresults/transfer.csv holds every number; open {paths.REPORT / 'index.html'} in a browser.")


def _decimals(score: float | None) -> str:
    return "not tested" if score is None else f"{score:.3f}"

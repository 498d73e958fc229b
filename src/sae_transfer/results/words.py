"""What people call the names in the columns of results/: one name, one word, in the page and in its figures."""

import re
from collections.abc import Mapping

from sae_transfer.probing import kinds

BY_COLUMN: Mapping[str, Mapping[str, str]] = {
    "policy": {
        "in_domain": "best on A (the paper's choice)",
        "stability": "most often best in resamples of A",
        "worst_case": "best in its worst source",
        "agreement": "agrees with the sources' residual probes",
        "predictor": "highest predicted AUC",
        "best_of_source": "A's best on B (a bound)",
        "oracle": "B's own choice (a bound)",
    },
    "predictor": {
        "cv_auc": "AUC on A, cross-validated",
        "density_train": "how often it fires on A",
        "selection_frequency": "how often resamples of A choose it",
        "decoder_cosine": "cosine with A's residual probe",
        "mahalanobis_train": "Mahalanobis cosine with it, on A",
        "consensus_mean": "mean AUC on the other sources",
        "consensus_min": "lowest AUC on the other sources",
        "density_test": "how often it fires on B",
        "density_shift": "change of how often it fires",
        "wasserstein": "Wasserstein distance of its values",
        "ks": "Kolmogorov-Smirnov distance of them",
        "mahalanobis_test": "Mahalanobis cosine with A's probe, on B",
        "agreement": "agrees with A's residual probe on B",
        "agreement_sources": "agrees with all sources' probes on B",
        "separability": "how well A's rows are told from B's",
        "mahalanobis_target": "Mahalanobis cosine with B's own probe",
        "agreement_target": "agrees with B's own probe",
        "combined": "all that need no label, combined",
    },
    "target_access": {"no": "nothing", "rows": "rows, no labels", "labels": "labels"},
    "verdict": {"no_good_feature": "no good feature", "open": "inconclusive", "unknown": "inconclusive"},
    "domain": {"ood": "out of domain"},
}
PLAIN = ("domain", "fate", "resampling", "reading", "candidates", "regime", "objective", "family")


def words(column: str, name: str) -> str:
    """What people call a name that stands in a column; the name itself in a column of names from params."""
    if column in ("probe", "key", "direction"):
        return kinds.label(name)
    known = BY_COLUMN.get(column, {})
    if few := re.fullmatch(r"few_(\d+)", name):
        return f"best on {few[1]} labels of B" if column == "policy" else f"AUC on {few[1]} labels of B"
    if name in known:
        return known[name]
    return name.replace("_", " ") if known or column in PLAIN else name

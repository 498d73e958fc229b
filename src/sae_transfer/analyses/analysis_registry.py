"""Every analysis, and every table of results/: a new analysis is a file and a line here."""

from sae_transfer.analyses import (
    calibration,
    candidate_table,
    feature_examples,
    feature_matches,
    feature_splitting,
    length,
    oracle_gap,
    policies,
    predictors,
    regimes,
    sae_comparison,
    selection,
    similarity,
    stability,
    variations,
)
from sae_transfer.analyses.analysis import Analysis
from sae_transfer.results import counts, headline, warnings
from sae_transfer.results.schema import Table
from sae_transfer.results.transfer_table import TRANSFER

ANALYSES: dict[str, Analysis] = {
    module.ANALYSIS.name: module.ANALYSIS
    for module in (
        feature_examples,
        candidate_table,
        selection,
        oracle_gap,
        predictors,
        policies,
        calibration,
        variations,
        similarity,
        sae_comparison,
        feature_splitting,
        feature_matches,
        length,
        regimes,
    )
}
"""By name, in the order in which the report tells them."""

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        TRANSFER,
        headline.TABLE,
        warnings.TABLE,
        counts.DATASETS,
        counts.HEALTH,
        stability.BOOTSTRAP,
        stability.BOOTSTRAP_FEATURES,
        *(analysis.table for analysis in ANALYSES.values() if analysis.published),
    )
}
"""By the name of the file under results/, without its ending."""

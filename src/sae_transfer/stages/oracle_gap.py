"""oracle_gap: what the standard selection loses on each B against the best features for B -> results/oracle_gap.csv."""

from threadpoolctl import threadpool_limits

from sae_transfer import config, paths
from sae_transfer.generalization import GeneralizationParams
from sae_transfer.generalization.oracle import oracle_gaps
from sae_transfer.stages import domains, run
from sae_transfer.stages.inputs import StudyParams


def oracle_gap() -> None:
    params = config.read()
    study = config.section(params, StudyParams, "study")
    good = config.section(params, GeneralizationParams, "generalization").good_auc
    with threadpool_limits(1):  # matrices of a few hundred rows: threads would wait for each other
        tables = [oracle_gaps(domains.read(sae, params), good).assign(sae=sae) for sae in study.saes]
    domains.write_by_sae(paths.RESULTS / "oracle_gap.csv", tables)


if __name__ == "__main__":
    run(oracle_gap)

"""policies: what each way to choose A's features gives on B -> results/policies.csv."""

from threadpoolctl import threadpool_limits

from sae_transfer import config, paths, store
from sae_transfer.generalization import GeneralizationParams
from sae_transfer.generalization.policies import Knowledge, policies
from sae_transfer.generalization.statistics import few_labels
from sae_transfer.stages import domains, run
from sae_transfer.stages.inputs import StudyParams


def make_policies() -> None:
    params = config.read()
    study = config.section(params, StudyParams, "study")
    chosen, seed = config.section(params, GeneralizationParams, "generalization"), int(params["seed"])
    tables = []
    with threadpool_limits(1):  # matrices of a few hundred rows: threads would wait for each other
        for sae in study.saes:
            found = domains.read(sae, params)
            known = Knowledge(
                store.read_table(paths.BOOTSTRAP / sae / "features.parquet"),
                store.read_table(paths.PREDICTORS / f"{sae}.parquet"),
                {domain.name: few_labels(domain, chosen.few_labels, chosen.draws, seed) for domain in found},
            )
            tables.append(policies(found, known).assign(sae=sae))
    domains.write_by_sae(paths.RESULTS / "policies.csv", tables)


if __name__ == "__main__":
    run(make_policies)

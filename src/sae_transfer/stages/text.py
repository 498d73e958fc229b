"""text: probes on the words of the prompts alone, trained on every dataset and tested on every dataset."""

from threadpoolctl import threadpool_limits

from sae_transfer import config, text
from sae_transfer.probes import Probe, ProbeParams
from sae_transfer.stages import inputs, run
from sae_transfer.stages.inputs import StudyParams
from sae_transfer.stages.testing import Collected, by_size, conditions


def text_baselines() -> None:
    params = config.read()
    study = config.section(params, StudyParams, "study")
    chosen, seed = config.section(params, ProbeParams, "probe"), int(params["seed"])
    tables = {dataset: inputs.prompt_table(dataset) for dataset in study.datasets}
    rows = {
        name: text.text_rows(*(list(table[part]) for part in ("prompt", "context", "question")))
        for name, table in tables.items()
    }
    found = Collected("text", params["model"]["name"], layer=None)
    fitted: dict[str, list[Probe]] = {}
    with threadpool_limits(1):  # small and sparse: threads would wait for each other
        for train, table in tables.items():
            wanted = inputs.training_rows(table)
            labels, groups = table["label"].to_numpy()[wanted], table["group"].to_numpy().astype(str)[wanted]
            fitted[train] = [
                probe
                for at in inputs.matched_sizes(labels, chosen)
                for probe in text.text_probes(
                    {name: X[wanted][at] for name, X in rows[train].items()}, labels[at], groups[at], seed, chosen
                )
            ]
    for test, table in tables.items():
        for condition in conditions(test, table, params):
            here = {name: X[condition.at] for name, X in rows[test].items()}
            for train in study.datasets:
                if condition.name == "whole" and test == train:
                    continue
                for probes in by_size(fitted[train]).values():
                    found.add(train, probes, condition, here, None, params)
    found.write()


if __name__ == "__main__":
    run(text_baselines)

"""What the transfer table says, in sentences."""

import pandas as pd

from sae_transfer.probing import kinds
from sae_transfer.results import cells
from sae_transfer.results.headline_numbers import contest, of_control, of_transfer


def findings(table: pd.DataFrame) -> list[str]:
    """What the numbers say, in sentences."""
    rows = cells.headline(cells.without_baselines(table))
    keys = [key for key in rows["key"].unique() if not cells.is_control(key)]
    told = [_finding(key, rows[rows["key"] == key]) for key in keys]
    control = rows[rows["probe"] == "shuffled_labels"]
    if len(control):
        n = of_control(control)
        told.append(
            f"Negative control: probes trained on shuffled labels have a mean AUC of {n['auc']:.3f} (cells: "
            f"{n['auc_lowest']:.2f} to {n['auc_highest']:.2f}); in {n['cells_whose_interval_holds_chance']} of "
            f"{n['cells']} cells the 95% interval over repeats contains 0.5."
        )
    return [*told, *_left_out(table)]


def _left_out(table: pd.DataFrame) -> list[str]:
    """How many rows of the test splits test nobody, since they stand among A's training rows."""
    pairs = cells.own_template(table[table["condition"] == "test"]).drop_duplicates(["train", "test"])
    shared = pairs[pairs["n_overlap"] > 0]
    if not len(shared):
        return []
    most = shared.sort_values("n_overlap", ascending=False, kind="stable").iloc[0]
    total = int(shared["n_overlap"].sum())
    rows = "1 test row is" if total == 1 else f"{total} test rows are"
    return [
        f"In {len(shared)} of {len(pairs)} pairs of a training and a test set, {rows} left out, for the same context "
        f"and question stand among the training rows; most of them, {most['n_overlap']}, in {most['train']} to "
        f"{most['test']}."
    ]


def _finding(key: str, rows: pd.DataFrame) -> str:
    numbers, away = of_transfer(rows), rows[~rows["in_domain"]]
    name, spaces = kinds.label(key), ", ".join(rows["space"].unique())
    told = f"{name[0].upper()}{name[1:]} ({spaces}): mean AUC {cells.number(numbers['auc_in_domain'])} in domain"
    if not numbers["cells_ood"]:
        return f"{told}."
    worst = away.sort_values("auc", kind="stable").iloc[0]
    told += (
        f", {cells.number(numbers['auc_ood'])} out of domain; worst {cells.number(worst['auc'])} "
        f"({worst['space']}, {worst['train']} to {worst['test']})."
    )
    compared, wins, losses = contest(away)
    if compared:
        _, sure_wins, sure_losses = contest(away, corrected=True)
        told += (
            f" Of {compared} out-of-domain cells with an interval, it beats the residual stream probe of its layer in "
            f"{wins} and loses in {losses}; after Holm's correction over these cells in {sure_wins} and {sure_losses}."
        )
    return told

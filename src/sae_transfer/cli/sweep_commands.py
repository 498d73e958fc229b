"""`sae-transfer sweep` and `dashboard`: Optuna studies that tune the probes of each (SAE, A)."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sae_transfer.core import files, paths
from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import PARAMS_FILE, parse

if TYPE_CHECKING:
    from sae_transfer.pipeline.study import Study
    from sae_transfer.tuning.sweep import Plan
    from sae_transfer.tuning.trials import Sweep

STUDIES = Path("studies")
DATA = ("seed", "model", "saes", "datasets")  # the sections that decide what lies in artifacts/

Name = Annotated[str, typer.Option(help="The sweep's name; its journal is studies/<NAME>.journal.")]


def sweep(
    name: Name = "sweep",
    jobs: Annotated[int, typer.Option(min=1, help="Worker processes; the result does not depend on it.")] = 1,
    max_trials: Annotated[
        int | None, typer.Option(help="Complete trials of each (SAE, A), instead of sweep.trials.")
    ] = None,
    like: Annotated[
        str | None, typer.Option(metavar="PRESET", help="Take the sections sweep and probe of presets/<PRESET>.yaml.")
    ] = None,
    sae: Annotated[list[str] | None, typer.Option(help="Only this SAE; may be repeated.")] = None,
    train: Annotated[list[str] | None, typer.Option(help="Only this training set; may be repeated.")] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Run nothing: write the sweep's winners into params.yaml.")
    ] = False,
    n_max: Annotated[
        int | None, typer.Option(min=1, help="With --apply: winners of at most this many features.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print every trial as JSON.")] = False,
    track: Annotated[bool, typer.Option(help="Show the trials in MLflow.")] = True,
) -> None:
    """Tune the N-sparse probes with Optuna.

    C, N, the ranking rule and the scaling are chosen by cross-validation on A's training rows.

    Trials see A's training rows alone; test rows are scored afterwards, for the chosen trials, and choose nothing.
    Killed at any moment, run it again: it goes on where it was.
    """
    from sae_transfer.tuning.sweep import Plan, pairs

    of = _study(like, max_trials)
    plan = Plan(of, name, pairs(of, sae or (), train or ()))
    found = _stored(plan) if apply else _run(plan, jobs, quiet)
    if apply:
        _apply(plan, found, n_max, quiet or as_json)
    elif track:
        from sae_transfer.tracking import sweeps

        sweeps.log_sweeps(found, of.params.tracking)
    if as_json:
        print(json.dumps([each.as_json() for each in found], indent=1, sort_keys=True))
    elif not apply and not quiet:
        _print_table(found, name)


def _study(like: str | None, max_trials: int | None) -> "Study":
    """The study here, with the sections `sweep` and `probe` of a preset, and another number of trials, if asked."""
    from sae_transfer.pipeline import presets
    from sae_transfer.pipeline.params import Params
    from sae_transfer.pipeline.study import Study
    from sae_transfer.tuning.search_space import SweepParams

    params = Params.read()
    if like is not None:
        chosen = Params.read(presets.file(like))
        if other := next((name for name in DATA if getattr(params, name) != getattr(chosen, name)), None):
            raise UserError(
                f"presets/{like}.yaml: its {other} is not that of params.yaml, whose features lie in artifacts/; "
                f"copy it over params.yaml and run `dvc repro` first"
            )
        params = params.model_copy(update={"sweep": chosen.sweep, "probe": chosen.probe})
    if max_trials is not None:
        sweep = parse(SweepParams, params.sweep.model_dump() | {"trials": max_trials}, "sweep")
        params = params.model_copy(update={"sweep": sweep})
    params.sweep.check_grid(params.probe)
    return Study(params)


def _stored(plan: "Plan") -> "list[Sweep]":
    """The study's sweeps of the plan's pairs."""
    from sae_transfer.tuning import optuna_studies

    found = {(each.space, each.train): each for each in optuna_studies.records(plan.sweep.storage, plan.name)}
    return [found[pair] for pair in plan.pairs if pair in found]


def _run(plan: "Plan", jobs: int, quiet: bool) -> "list[Sweep]":
    from sae_transfer.tuning import sweep as sweeps
    from sae_transfer.tuning import trials

    with _progress(plan, quiet) as tick:
        found = sweeps.sweep(plan, jobs, tick)
    files.write_json(STUDIES / f"{plan.name}.json", [each.as_json() for each in found])
    files.write_text(STUDIES / f"{plan.name}.csv", trials.table(found).to_csv(index=False, lineterminator="\n"))
    by_pair = {(each.space, each.train): each for each in found}
    return [by_pair[pair] for pair in plan.pairs]


@contextmanager
def _progress(plan: "Plan", quiet: bool) -> Iterator[Callable[[str, float, int], None]]:
    """A bar over all trials, with the number of (SAE, A) that are finished."""
    from tqdm import tqdm

    per, pairs = plan.sweep.trials, len(plan.pairs)
    done: Counter[str] = Counter()
    bar = tqdm(total=per * pairs, desc=plan.name, unit="trials", disable=quiet, delay=0.1)

    def tick(name: str, _: float, trials: int) -> None:
        done[name] += trials
        finished = sum(count >= per for count in done.values())
        bar.set_postfix_str(f"{finished} of {pairs} (SAE, A) finished", refresh=False)
        bar.update(trials)

    try:
        yield tick
    finally:
        bar.leave = bool(done)
        bar.close()


def _apply(plan: "Plan", found: "list[Sweep]", n_max: int | None, quiet: bool) -> None:
    from sae_transfer.analyses.analysis_registry import TABLES
    from sae_transfer.tuning.apply import apply, rows_of, winners

    chosen = winners(found, n_max)
    there = [name for name in TABLES if (plan.study.path(paths.RESULTS) / f"{name}.csv").exists()]
    rows = rows_of({name: plan.study.table(name) for name in there}, chosen)
    apply(PARAMS_FILE, chosen)
    if quiet:
        return
    for (space, train), choice in chosen.items():
        print(f"probe.{space}.{train}: C {choice.C:g}, N {choice.N}, {choice.ranking}, {choice.scaling}")
    told = ", ".join(f"{name} ({count:,} rows)" for name, count in rows.items())
    print(f"`dvc repro` now fits the N-sparse probes of these {len(chosen)} (SAE, A) anew, and their controls.")
    print(f"Numbers will change in results/: {told or 'no table is there yet'}.")
    print("The 1-sparse and residual stream probes stay as they are.")


def _print_table(found: "list[Sweep]", name: str) -> None:
    from sae_transfer.tuning.trials import TIE, table, ties, winner

    shown = table(found)
    print(f"{'':<73}{'tuned':^30}   {'untuned':^23}")
    print(
        f"{'SAE':<12} {'A':<12} {'N':>4} {'C':>9} {'ranking':<16} {'scaling':<9} {'ties':>4}  "
        f"{'loss':>6} {'AUC':>6} {'inside':>7} {'outside':>8}   {'loss':>6} {'inside':>7} {'outside':>8}"
    )
    for row in shown.to_dict("records"):
        print(_line(row))
    flat = sum(2 * (1 + ties(each, winner(each))) >= len(each.complete) for each in found)
    means = [shown[column].mean() for column in ("auc_ood", "untuned.auc_ood")]
    print(f"\nMean AUC outside A: {means[0]:.3f} tuned, {means[1]:.3f} untuned. ", end="")
    print(f"In {flat} of {len(found)} (SAE, A) half of the trials or more come within {TIE} of the best.")
    print(f"studies/{name}.csv holds this table, studies/{name}.json every trial.")
    print(f"`make dashboard SWEEP={name}` shows the trials.")
    print(f"`sae-transfer sweep --name {name} --apply` writes the winners into params.yaml.")


def _line(row: dict[Any, Any]) -> str:
    return (
        f"{row['sae']:<12} {row['train']:<12} {row['N']:>4} {row['C']:>9g} {row['ranking']:<16} {row['scaling']:<9} "
        f"{row['ties']:>4}  {row['cv_log_loss']:>6.3f} {row['cv_auc']:>6.3f} {row['auc_in_domain']:>7.3f} "
        f"{row['auc_ood']:>8.3f}   {row['untuned.cv_log_loss']:>6.3f} {row['untuned.auc_in_domain']:>7.3f} "
        f"{row['untuned.auc_ood']:>8.3f}"
    )


def dashboard(
    name: Name = "sweep",
    port: Annotated[int, typer.Option(help="The port on 127.0.0.1.")] = 8081,
) -> None:
    """Look at a sweep in the browser.

    It opens optuna-dashboard, on 127.0.0.1 alone.
    """
    from sae_transfer.pipeline.params import Params
    from sae_transfer.tuning import optuna_studies

    optuna_studies.serve(Params.read().sweep.storage, name, port)

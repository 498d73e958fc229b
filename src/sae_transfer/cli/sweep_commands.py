"""`sae-transfer sweep` and `dashboard`: Optuna studies that tune the probes of each (SAE, A)."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae_transfer.core import files
from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import PARAMS_FILE, parse

if TYPE_CHECKING:
    from sae_transfer.pipeline.study import Study
    from sae_transfer.tuning.sweep import Plan
    from sae_transfer.tuning.trials import Sweep, Trial

STUDIES = Path("studies")
DATA = ("seed", "model", "saes", "datasets")  # the sections that decide what lies in artifacts/

Name = Annotated[str, typer.Option(help="The study's name; its journal is studies/<STUDY>.journal.")]


def sweep(
    study: Name = "sweep",
    jobs: Annotated[int, typer.Option(min=1, help="Worker processes; the result does not depend on it.")] = 1,
    max_trials: Annotated[
        int | None, typer.Option(help="Complete trials of each (SAE, A), instead of sweep.trials.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Take the sections sweep and probe of presets/<PRESET>.yaml.")
    ] = None,
    sae: Annotated[list[str] | None, typer.Option(help="Only this SAE; may be repeated.")] = None,
    train: Annotated[list[str] | None, typer.Option(help="Only this training set; may be repeated.")] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Run nothing: write the study's winners into params.yaml.")
    ] = False,
    n_max: Annotated[
        int | None, typer.Option(min=1, help="With --apply: winners of at most this many features.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print every trial as JSON.")] = False,
    track: Annotated[bool, typer.Option(help="Show the trials in MLflow.")] = True,
) -> None:
    """Tune C, N, the ranking rule and the scaling of the N-sparse probe, by cross-validation on A's training rows.

    Trials see A's training rows alone; test rows are scored afterwards, for the chosen trials, and choose nothing.
    Killed at any moment, run it again: it goes on where it was.
    """
    from sae_transfer.tuning.sweep import Plan, pairs

    of = _study(preset, max_trials)
    plan = Plan(of, study, pairs(of, sae or (), train or ()))
    found = _stored(plan) if apply else _run(plan, jobs, quiet)
    if apply:
        _apply(found, n_max, quiet or as_json)
    elif track:
        from sae_transfer.tracking import sweeps

        sweeps.log_sweeps(found, of.params.tracking, progress=not quiet)
    if as_json:
        print(json.dumps([each.as_json() for each in found], indent=1, sort_keys=True))
    elif not apply and not quiet:
        _print_table(found, study)


def _study(preset: str | None, max_trials: int | None) -> "Study":
    """The study here, with the sections `sweep` and `probe` of a preset, and another number of trials, if asked."""
    from sae_transfer.pipeline import presets
    from sae_transfer.pipeline.params import Params
    from sae_transfer.pipeline.study import Study
    from sae_transfer.tuning.search_space import SweepParams

    params = Params.read()
    if preset is not None:
        chosen = Params.read(presets.file(preset))
        if other := next((name for name in DATA if getattr(params, name) != getattr(chosen, name)), None):
            raise UserError(
                f"presets/{preset}.yaml: its {other} is not that of params.yaml, whose features lie in artifacts/; "
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

    return [
        each for each in optuna_studies.records(plan.sweep.storage, plan.name) if (each.space, each.train) in plan.pairs
    ]


def _run(plan: "Plan", jobs: int, quiet: bool) -> "list[Sweep]":
    from sae_transfer.tuning import sweep as sweeps

    with _progress(plan, quiet) as tick:
        found = sweeps.sweep(plan, jobs, tick)
    files.write_json(STUDIES / f"{plan.name}.json", [each.as_json() for each in found])
    return [each for each in found if (each.space, each.train) in plan.pairs]


@contextmanager
def _progress(plan: "Plan", quiet: bool) -> Iterator[Callable[[str, float, int], None]]:
    """A bar over all trials, with the sweep that just moved and the best AUC that it has found so far."""
    from tqdm import tqdm

    best: dict[str, float] = {}
    bar = tqdm(total=plan.sweep.trials * len(plan.pairs), desc=plan.name, unit="trials", disable=quiet, delay=0.1)

    def tick(name: str, area: float, done: int) -> None:
        best[name] = max(area, best.get(name, area))
        bar.set_postfix_str(f"{name.split('/', 1)[1]} best cv AUC {best[name]:.3f}", refresh=False)
        bar.update(done)

    try:
        yield tick
    finally:
        bar.leave = bool(best)
        bar.close()


def _apply(found: "list[Sweep]", n_max: int | None, quiet: bool) -> None:
    from sae_transfer.tuning.apply import apply, winners

    chosen = winners(found, n_max)
    apply(PARAMS_FILE, chosen)
    for (space, train), choice in chosen.items():
        if not quiet:
            print(f"probe.{space}.{train}: C {choice.C:g}, N {choice.N}, {choice.ranking}, {choice.scaling}")


def _print_table(found: "list[Sweep]", study: str) -> None:
    from sae_transfer.tuning.trials import chosen

    heads = f"{'SAE':<12} {'A':<12} {'N':>4} {'C':>9} {'ranking':<16} {'scaling':<9}"
    print(f"{heads} cv AUC   test AUC in domain [95%]   mean outside")
    for each in found:
        for trial in chosen(each):
            print(_line(each, trial))
    print(f"\nstudies/{study}.json holds every trial; `make dashboard STUDY={study}` shows them;")
    print(f"`sae-transfer sweep --study {study} --apply` writes the winners into params.yaml.")


def _line(sweep: "Sweep", trial: "Trial") -> str:
    params, found = trial.params, trial.attributes
    outside = [value for key, value in found.items() if key.startswith("auc.") and key != f"auc.{sweep.train}"]
    area, low, high = (found.get(f"{name}.{sweep.train}", float("nan")) for name in ("auc", "auc_low", "auc_high"))
    return (
        f"{sweep.space:<12} {sweep.train:<12} {params['N']:>4} {params['C']:>9.3g} {params['ranking']:<16} "
        f"{params['scaling']:<9} {trial.value:.3f}    {area:.3f} [{low:.3f}, {high:.3f}]      "
        f"{sum(outside) / len(outside) if outside else float('nan'):.3f}"
    )


def dashboard(
    study: Name = "sweep",
    port: Annotated[int, typer.Option(help="The port on 127.0.0.1.")] = 8081,
) -> None:
    """Open a study in optuna-dashboard, on 127.0.0.1 alone."""
    from sae_transfer.pipeline.params import Params
    from sae_transfer.tuning import optuna_studies

    optuna_studies.serve(Params.read().sweep.storage, study, port)

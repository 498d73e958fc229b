"""`sae-transfer doctor`: is this machine ready, and what will the study cost."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from sae_transfer.cli.params_option import ParamsFile, chosen_params


def doctor(
    params_file: ParamsFile = "params.yaml",
    tflops: Annotated[
        float | None, typer.Option(help="Assume this many TFLOP/s of matrix products, as of a machine elsewhere.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Check this machine and estimate the cost.

    Nothing is downloaded for it.
    """
    from sae_transfer.core.errors import UserError
    from sae_transfer.model import loading
    from sae_transfer.pipeline import doctor, study_cost
    from sae_transfer.pipeline.doctor import Finding

    params = chosen_params(params_file)
    model = params.model
    device, trouble, cost = "cpu", [], None
    try:
        device = loading.available_device(model.device)
    except UserError as error:
        trouble.append(Finding("device", "problem", str(error)))
    rate = tflops * 1e12 if tflops else doctor.measured_flops_per_s(device, model.dtype)
    try:
        cost = study_cost.estimate_cost(params, rate, on_cpu=device == "cpu" and tflops is None)
    except UserError as error:
        trouble.append(Finding("estimate", "note", str(error)))
    found = doctor.findings(model.name, device, cost) + doctor.untestable(params) + trouble
    if as_json:
        print(json.dumps({"findings": [asdict(each) for each in found], "estimate": cost and asdict(cost)}, indent=1))
    else:
        lines = [(each.check, f"{'' if each.state == 'ok' else each.state + ': '}{each.text}") for each in found]
        lines += [("", ""), *doctor.describe(cost, rate)] if cost else []
        for name, text in lines:
            print(f"{name:<14}  {text}".rstrip())
    if any(each.state == "problem" for each in found):
        raise typer.Exit(1)

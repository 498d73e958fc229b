"""`sae-transfer import-activations`: what another tool cached, as a dataset of this study."""

from pathlib import Path
from typing import Annotated

import typer


def import_activations(
    name: Annotated[str, typer.Argument(help="What to call the dataset.")],
    rows: Annotated[Path, typer.Argument(help="CSV or JSONL: label, and prompt, id, group where there are any.")],
    arrays: Annotated[
        list[Path], typer.Argument(help="Activations: .safetensors, .npz or .npy files of rows x d_model.")
    ],
    layer: Annotated[int | None, typer.Option(help="The layer of a single array.")] = None,
    n_train: Annotated[int | None, typer.Option(help="Training rows, half of each label.")] = None,
    n_test: Annotated[int | None, typer.Option(help="Test rows, half of each label.")] = None,
    label: Annotated[str | None, typer.Option(help="The column with the label.")] = None,
    positive: Annotated[str | None, typer.Option(help="The label's text for 1.")] = None,
    negative: Annotated[str | None, typer.Option(help="The label's text for 0.")] = None,
    prompt: Annotated[str | None, typer.Option(help="The column with the finished prompt.")] = None,
    group: Annotated[str | None, typer.Option(help="The column with the group, which no split tears apart.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="The column with the row's name.")] = None,
) -> None:
    """Add activations that another tool cached.

    They become a dataset for which no model runs.

      sae-transfer import-activations mine rows.csv layer_3.safetensors

    Row i of every array belongs to row i of the table. The name of an array says its layer: layer_3,
    blocks.3.hook_resid_post or model.layers.3. The command copies both to data/external/NAME and adds the dataset to
    params.yaml. `dvc repro` then encodes it with the study's SAEs and tests it as any other; docs/python.md says more.
    """
    from sae_transfer.pipeline import imports, versioning
    from sae_transfer.pipeline.study import Study

    named = {"label": label, "positive": positive, "negative": negative, "prompt": prompt, "group": group, "id": id_}
    columns = {column: value for column, value in named.items() if value is not None}
    found = imports.bring(
        Study.open(), name, rows, arrays, columns=columns, layer=layer, n_train=n_train, n_test=n_test
    )
    tracked = versioning.track(found.folder)
    layers = ", ".join(map(str, found.layers))
    print(f"{found.folder}: {found.rows} rows of {found.width} numbers, layers {layers}")
    print(f"params.yaml: {name}: {found.section}")
    print(f"to commit: {tracked} and params.yaml; `dvc repro` goes on from here")

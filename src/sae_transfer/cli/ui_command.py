"""`sae-transfer ui`: MLflow in the browser."""

from typing import Annotated

import typer


def ui(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65535)] = 5000,
) -> None:
    """Show the runs in MLflow.

    It listens on this machine alone; Ctrl-C ends it.
    """
    import signal

    from sae_transfer.pipeline.params import Params
    from sae_transfer.tracking import location, server, view

    params = Params.read().tracking
    if location.uri_of(params):
        print(f"runs go to {location.shown(params)}: open it in a browser")
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended by whatever way, the server ends too
    try:
        with server.serving(location.root() / location.FOLDER, port) as address:
            for name in (view.TABLE_VIEW, view.CHARTS_VIEW):
                print(f"{name}: {server.shipped_view(address, params.experiment, name)}", flush=True)
            print("Ctrl-C ends it", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        print("ended")

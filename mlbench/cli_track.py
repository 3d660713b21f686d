"""The verbs that look at a run: its state, and MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[Path, typer.Argument(help="A run folder, e.g. reports/demo.", metavar="RUN")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for verb in (status, track, ui):
        app.command()(verb)


def status(
    folder: RunFolder,
    watch: Annotated[bool, typer.Option("--watch", help="Draw it again every two seconds until the run ends.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")] = False,
) -> None:
    """Show how far a run is, what runs now and what failed; works while it runs.

    Example:  mlbench status reports/demo --watch
    """
    from mlbench import describe
    from mlbench import watch as watching

    if watch:
        watching.watch(folder)
        return
    summary = describe.of_run(folder)
    print(json.dumps(summary, indent=1) if as_json else describe.run_text(summary))


def track(
    folder: RunFolder,
    uri: Annotated[str, typer.Option(help="Any MLflow tracking URI; default: the shootout's.")] = "",
) -> None:
    """Send a run to MLflow: a run for the shootout, one inside it for each checkpoint. Sending again adds nothing.

    Example:  mlbench track reports/demo --uri http://mlflow.example.org:5000
    """
    from mlbench import tracking

    if not tracking.send(folder, uri):
        raise typer.Exit(1)
    print(f"sent; to see it: mlbench ui {folder}" if not uri else f"sent to {uri}")


def ui(
    folder: Annotated[
        Path | None, typer.Argument(help="A run folder; default: the runs in reports/.", metavar="[RUN]")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
) -> None:
    """Show MLflow's pages of a run on this machine until Ctrl-C.

    Example:  mlbench ui reports/demo
    """
    from mlbench import tracking

    tracking.serve(folder, port)

"""The verbs of the model organism."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

organism = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The model organism: build it, or test it.")


@organism.command("build")
def organism_build(
    source: Annotated[str, typer.Argument(help="organism:small, organism:small@3, organism:base.")] = "organism:small",
) -> None:
    """Build an organism, unless the cache has it, and print its folder.

    Example:  mlbench organism build organism:small@1
    """
    from mlbench import sources, view

    with view.StageBar(f"building {source}") as bar:
        print(sources.fetch(sources.resolve(source), bar).base)


@organism.command("report")
def organism_report(
    seeds: Annotated[str, typer.Option(help="e.g. 0-4 or 0,2,5.")] = "0-4",
    size: Annotated[str, typer.Option(help="small or base.")] = "small",
    out: Annotated[Path | None, typer.Option(help="Write the Markdown here as well.")] = None,
) -> None:
    """Measure organisms against the acceptance gate and show every seed, passed or failed.

    Example:  mlbench organism report --seeds 0-4
    """
    from mlbench import view
    from mlbench.organism import gate, recipe

    recipe.parse(f"organism:{size}")
    with view.StageBar("organism") as bar:
        text = gate.report(size, gate.seeds(seeds), bar)
    print(text)
    if out:
        out.write_text(text, encoding="utf-8")

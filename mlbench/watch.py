"""The state of a run, drawn again and again until it ends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from mlbench import describe, view

SECONDS = 2.0


def watch(folder: Path, seconds: float = SECONDS) -> None:
    """Show how far a run is until every job has ended or somebody interrupts; a line per change without a terminal.

    Raises:
        DataError: The folder holds no plan.
    """
    console = Console()
    about, shown = describe.of_run(folder), ""
    try:
        with Live(console=console, auto_refresh=False) if console.is_terminal else console as live:
            while True:
                if isinstance(live, Live):
                    live.update(Text(describe.run_text(about)), refresh=True)
                elif (line := summary(about)) != shown:
                    shown = line
                    print(line, flush=True)
                if has_ended(about):
                    return
                time.sleep(seconds)
                about = _again(folder) or about
    except KeyboardInterrupt:
        return


def _again(folder: Path) -> dict[str, Any] | None:
    try:
        return describe.of_run(folder)
    except FileNotFoundError:  # a job was replaced between looking and reading
        return None


def has_ended(about: Mapping[str, Any]) -> bool:
    """Say whether nothing is left to do; what waits for a failed job will not run."""
    return not about["selecting"] and not any(name.endswith(" missing") for name in about["jobs"])


def summary(about: Mapping[str, Any]) -> str:
    """Return the state of a run in one line."""
    stage = f"{about['name']}: "
    if about["selecting"]:
        about, stage = about["selecting"], f"{stage}selecting settings: "
    counts = about["jobs"]
    done = sum(count for name, count in counts.items() if name.endswith(" done"))
    failed = f", {len(about['failed'])} failed" if about["failed"] else ""
    running = [" ".join(filter(None, (f"{label}:", *view.doing(now)))) for label, now in about["running"].items()]
    return f"{stage}{done}/{sum(counts.values())} jobs done{failed}" + "".join(f"; {text}" for text in running)

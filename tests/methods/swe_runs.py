"""Edits of SWE on the tiny corpus."""

from dataclasses import replace
from pathlib import Path

from mlbench_methods.swe import SWE

from mlbench import tiny
from mlbench.core import Checkpoint, Corpus
from mlbench.corpus import view


def edited(method: SWE, start: Checkpoint, folder: Path, corpus: Corpus | None = None, **log: object) -> tiny.Log:
    """Return what an edit of the start model has told; `log` are the fields of its run."""
    run = tiny.Log(folder=folder, **log)  # type: ignore[arg-type]
    method.align(start, view(corpus or tiny.corpus(12), method.needs), run)
    return run


def result(run: tiny.Log, start: Checkpoint) -> Checkpoint:
    """Return the start model with the edit that a run has written."""
    return replace(start, adapters=(*start.adapters, str(run.folder / "adapter")))

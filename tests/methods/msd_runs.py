"""Trainings of MSD on the tiny corpus, whole or up to the objective."""

from pathlib import Path

import torch
from mlbench_methods.msd import MSD

from mlbench import models, tiny
from mlbench.core import Checkpoint, Corpus, Example
from mlbench.corpus import view
from mlbench.training import fit
from mlbench.training.distil import Distillation

SHORT = {"max_new_tokens": 6}


def log(folder: Path, seed: int = 0, **changes: int | float) -> tiny.Log:
    """Return a run of two steps that nothing has trained yet; `changes` are those of its budget."""
    return tiny.Log(folder=folder, seed=seed, training=tiny.budget(**changes))


def trained(method: MSD, start: Checkpoint, run: tiny.Log, corpus: Corpus | None = None) -> tiny.Log:
    """Return the run after a training in it."""
    method.align(start, view(corpus or tiny.corpus(), method.needs), run)
    return run


def prepared(
    method: MSD, start: Checkpoint, run: tiny.Log, corpus: Corpus | None = None
) -> tuple[Distillation, models.Loaded, tuple[Example, ...]]:
    """Return the objective of a full fine-tuning, its model and its rows in the order of the steps."""
    seen = view(corpus or tiny.corpus(), method.needs)
    rows = fit.lay_out(method.rows(seen, run), run).rows
    loaded = models.load(start, device="cpu")
    loaded.model.requires_grad_(True)
    return method.distillation(loaded, rows, seen, run), loaded, rows


def move_apart(student: models.Loaded) -> None:
    """Make a student that differs from its teacher by more than rounding."""
    with torch.no_grad():
        student.model.lm_head.weight.add_(torch.linspace(-0.1, 0.1, 262)[:, None])

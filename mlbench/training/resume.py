"""Going on after a kill: what a training saves besides its trainer's own state, and how that is found again.

The trainer writes weights, optimiser, schedule, random states and the curve into `checkpoint-<step>`. What it does not
know of goes into one more file there, which is written last and under another name first: a save without that file
was cut short and does not count. The file also says which training it belongs to, so that no other one goes on from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from transformers import Trainer, TrainerCallback, TrainerState

from mlbench.core import Checkpoint, Example, Run
from mlbench.training.side import gather

REST = "mlbench.pt"


@runtime_checkable
class Stateful(Protocol):
    """A part of a loss that changes while it trains: an objective with running means, a trained projection."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors and plain data."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Go on from a state; what is returned does not matter."""


class Restored(NamedTuple):
    """Where a training goes on.

    Attributes:
        folder: What the trainer resumes from.
        step: Optimiser steps done.
        curve: What the trainer has logged so far.
        seconds: How long these steps took.
    """

    folder: Path
    step: int
    curve: list[dict[str, float]]
    seconds: float


def identity(start: Checkpoint, run: Run, rows: Sequence[Example], order: Sequence[int]) -> str:
    """Return the hash of all that a training depends on, but for its loss: a scratch folder belongs to one method."""
    budget = asdict(replace(run.training, save_every=0))
    facts = [asdict(start), budget, run.seed, [asdict(row) for row in rows], list(order)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class Saves(TrainerCallback):  # type: ignore[misc]
    """Completes the saves of a trainer, keeps the newest one only, and goes on from it."""

    def __init__(self, trainer: Trainer, training: str, report: Stateful) -> None:
        """Watch over a trainer.

        Args:
            trainer: Its output folder may hold saves.
            training: The `identity` of the training.
            report: What counts while it trains.
        """
        self.trainer = trainer
        self.training = training
        self.report = report
        self.root = Path(trainer.args.output_dir)
        self.started = time.monotonic()

    def restore(self) -> Restored | None:
        """Return where this training was when it was killed, its own parts put back; None starts from the beginning."""
        found = self._newest()
        self.trainer.accelerator.wait_for_everyone()  # nobody removes what another process still reads
        self._remove_others(found[0] if found else None)
        if found is None:
            return None
        folder, rest = found
        mine = rest["states"][self.trainer.args.process_index]
        for name, part in self._parts().items():
            part.load_state_dict(mine["parts"][name])
        self.trainer.side_tokens = mine["side_tokens"]
        self.started -= rest["seconds"]
        state = TrainerState.load_from_json(str(folder / "trainer_state.json"))
        return Restored(folder, state.global_step, state.log_history, rest["seconds"])

    def on_save(self, args: object, state: TrainerState, control: object, **_: object) -> None:
        """Complete the save that the trainer has just written."""
        mine = {
            "side_tokens": getattr(self.trainer, "side_tokens", 0),
            "parts": {name: part.state_dict() for name, part in self._parts().items()},
        }
        states = gather(mine)  # and so every process has written its part
        if self.trainer.is_world_process_zero():
            folder = self.root / f"checkpoint-{state.global_step}"
            rest = {"training": self.training, "seconds": time.monotonic() - self.started, "states": states}
            temporary = folder / f".{REST}"
            torch.save(rest, temporary)
            os.replace(temporary, folder / REST)
            self._remove_others(folder)

    def _parts(self) -> dict[str, Stateful]:
        side = getattr(self.trainer, "side", None)
        objective = getattr(self.trainer, "objective", None)
        parts = {"report": self.report, "objective": objective, "extra": side and side.extra}
        return {name: part for name, part in parts.items() if isinstance(part, Stateful)}

    def _newest(self) -> tuple[Path, dict[str, Any]] | None:
        for folder in sorted(self.root.glob("checkpoint-*"), key=_step, reverse=True):
            if not (folder / REST).is_file():
                continue
            rest = torch.load(folder / REST, map_location="cpu", weights_only=True)
            if rest["training"] == self.training and len(rest["states"]) == self.trainer.args.world_size:
                return folder, rest
        return None

    def _remove_others(self, kept: Path | None) -> None:
        if self.trainer.is_world_process_zero():
            for folder in self.root.glob("checkpoint-*"):
                if folder != kept:
                    # First the file that makes it count: half of a save must not pass for one.
                    (folder / REST).unlink(missing_ok=True)
                    shutil.rmtree(folder, ignore_errors=True)


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])

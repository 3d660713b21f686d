"""Tiny noise on the weights of the final norm: a method that is good for nothing but tests."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from mlbench.core import Checkpoint, Corpus, Method, Need, Run

from ._noise import add


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Nudge:
    """Noise of a given scale."""

    paper: ClassVar[str] = "none"
    needs: ClassVar[frozenset[Need]] = frozenset()

    scale: Annotated[float, Field(gt=0)] = 0.01

    def align(self, start: Checkpoint, corpus: Corpus, run: Run) -> Checkpoint:
        """Return the model with noise on its final norm."""
        import torch

        from mlbench import models

        loaded = models.load(start, device="cpu")
        with torch.no_grad():
            added = add(loaded.model.model.norm.weight, self.scale, run.seed)
            whole = sum(float(weight.square().sum()) for weight in loaded.model.parameters())
        folder = run.folder / "model"
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
        run.record(weight_change=(added / whole) ** 0.5)
        return Checkpoint(base=str(folder), dtype=start.dtype, system_prompts=start.system_prompts)


plugin: type[Method] = Nudge

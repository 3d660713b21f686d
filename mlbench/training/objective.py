"""Training with a loss that is a function of the model and of row numbers: for what no TRL trainer computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from datasets import Dataset
from peft import get_peft_model
from torch import nn
from transformers import Trainer, TrainingArguments

from mlbench.core import Checkpoint, Example, Run
from mlbench.models import Loaded
from mlbench.training import fit
from mlbench.training.side import MakeSide, SideLoss, Terms

Objective = Callable[[nn.Module, Sequence[int], int], Terms]
"""(model, row numbers of a micro-batch, optimiser step from 0) -> their mean loss. It runs in the trainer's autocast;
call the model it is given, not the one it was made with: that one has no adapters. One that changes from step to step,
with a running mean, say, is an object with `state_dict()` and `load_state_dict(state)`, tensors and plain data, so that
a killed training can go on with it."""

MakeObjective = Callable[[Loaded, Sequence[Example]], Objective]
"""(start model, the rows of the training) -> the objective; here a reference is computed once and kept."""


def train(
    start: Checkpoint,
    rows: Sequence[Example],
    run: Run,
    make: MakeObjective,
    *,
    answers: bool,
    side: MakeSide | None = None,
) -> Checkpoint:
    """Return the start model trained with an objective over rows.

    Args:
        start: The start model.
        rows: What may be drawn; a row number counts within the rows that the budget draws.
        run: Budget, seed and folder.
        make: Makes the objective.
        answers: Whether the objective reads the rows' answers.
        side: Makes a loss to be added, given the start model.
    """
    plan = fit.lay_out(rows, run)
    arguments = TrainingArguments(**fit.settings(start, run) | {"remove_unused_columns": False})
    with fit.quiet():
        loaded = fit.fresh(start, plan.rows if answers else (), run)
        # A reference is computed where and as precisely as the training computes.
        loaded.model.to(arguments.device)
        with torch.autocast(arguments.device.type, torch.bfloat16, enabled=arguments.bf16):
            objective = make(loaded, plan.rows)
        added = side(loaded) if side else None
        adapter = fit.adapter(run.training)
        trainer = _Trainer(
            model=get_peft_model(loaded.model, adapter) if adapter else loaded.model,
            args=arguments,
            train_dataset=Dataset.from_dict({"row": list(range(len(plan.rows)))}),
            data_collator=_collate,
            processing_class=loaded.tokenizer,
        )
        trainer.objective = objective
        trainer.model_accepts_loss_kwargs = False  # the loss is a mean: the trainer divides it by the micro-batches
        trainer.attach(added)
        return fit.finish(trainer, plan, start, run, answers=answers)


def _collate(rows: list[dict[str, int]]) -> dict[str, torch.Tensor]:
    return {"row": torch.tensor([each["row"] for each in rows])}


class _Objective(Trainer):  # type: ignore[misc]
    objective: Objective

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        with self.accelerator.autocast():
            terms = self.objective(model, inputs["row"].tolist(), self.state.global_step)
        self.side_tokens += terms.tokens
        for name, value in terms.values.items():
            self.curves[name] += value / self.args.gradient_accumulation_steps / self.accelerator.num_processes
        return terms.loss


class _Trainer(SideLoss, _Objective):
    pass

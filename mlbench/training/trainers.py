"""What several methods train with: the choice of rows, supervised fine-tuning, and preference optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from datasets import Dataset
from transformers import PreTrainedModel
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from mlbench.core import Checkpoint, Example, Run
from mlbench.models import load
from mlbench.training import fit
from mlbench.training.side import MakeSide, SideLoss


def sft(
    start: Checkpoint, rows: Sequence[Example], run: Run, *, answers: bool = True, side: MakeSide | None = None
) -> Checkpoint:
    """Return the start model fine-tuned on the chosen answers; the loss covers the answers and their end only.

    Args:
        start: The start model.
        rows: Rows with chosen answers.
        run: Budget, seed and folder.
        answers: Whether the answers are the corpus's; False where the method has put others in their place.
        side: Makes the loss to be added, given the start model.
    """
    plan = fit.lay_out([replace(row, rejected=None) for row in rows], run)
    table = [{"prompt": fit.turns(start, row), "completion": fit.answer(row.chosen)} for row in plan.rows]
    config = SFTConfig(
        **fit.settings(start, run), max_length=None, packing=False, padding_free=False, completion_only_loss=True
    )
    with fit.quiet():
        loaded = fit.fresh(start, plan.rows, run)
        trainer = _SFT(
            model=loaded.model,
            args=config,
            train_dataset=Dataset.from_list(table),
            processing_class=loaded.tokenizer,
            peft_config=fit.adapter(run.training),
        )
        trainer.attach(side(loaded) if side else None)
        return fit.finish(trainer, plan, start, run, answers=answers)


def dpo(
    start: Checkpoint,
    rows: Sequence[Example],
    run: Run,
    *,
    loss: Literal["sigmoid", "ipo"] = "sigmoid",
    beta: float = 0.1,
    sft_weight: float = 0.0,
    side: MakeSide | None = None,
) -> Checkpoint:
    """Return the start model after direct preference optimisation, the start model being the reference.

    Args:
        start: The start and the reference model.
        rows: Rows with chosen and rejected answers.
        run: Budget, seed and folder.
        loss: "sigmoid" is DPO, "ipo" IPO.
        beta: Strength of the pull towards the reference; tau of IPO.
        sft_weight: Weight of the mean negative log-likelihood per token of the chosen answers.
        side: Makes the loss to be added, given the start model.

    References:
        Rafailov et al., "Direct Preference Optimization", arXiv:2305.18290; Azar et al., "A General Theoretical
        Paradigm to Understand Learning from Human Preferences", arXiv:2310.12036 (IPO).
    """
    plan = fit.lay_out(rows, run)
    table = [
        {"prompt": fit.turns(start, row), "chosen": fit.answer(row.chosen), "rejected": fit.answer(row.rejected)}
        for row in plan.rows
    ]
    config = DPOConfig(
        **fit.settings(start, run),
        max_length=None,
        beta=beta,
        loss_type=[loss, "sft"] if sft_weight else [loss],
        loss_weights=[1.0, sft_weight] if sft_weight else [1.0],
        # TRL shares what it computed beforehand through a file that only one process finds.
        precompute_ref_log_probs=fit.processes() == 1,
        disable_dropout=True,
    )
    with fit.quiet():
        loaded = fit.fresh(start, plan.rows, run)
        trainer = _DPO(
            model=loaded.model,
            ref_model=_reference(start, run),
            args=config,
            train_dataset=Dataset.from_list(table),
            processing_class=loaded.tokenizer,
            peft_config=fit.adapter(run.training),
        )
        trainer.attach(side(loaded) if side else None)
        return fit.finish(trainer, plan, start, run, answers=True)


def _reference(start: Checkpoint, run: Run) -> PreTrainedModel | None:
    """Return the reference where the trainer cannot get it from the start model before the first step.

    Left to itself the trainer reads it from the path in the model's config, which knows nothing of merged adapters.
    """
    if run.training.lora_rank or fit.processes() == 1:
        return None
    return load(replace(start, dtype="float32"), device="cpu").model


class _SFT(SideLoss, SFTTrainer):  # type: ignore[misc]
    pass


class _DPO(SideLoss, DPOTrainer):  # type: ignore[misc]
    pass

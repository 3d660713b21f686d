"""One fit: rows laid out before it starts, trainer settings, LoRA or full weights, one result folder, its price.

A fit loads its start model afresh and returns a folder, never a live model: TRL replaces `forward` on the instance,
so a copy of a trained model would answer with the weights of the original.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import datasets
import huggingface_hub.constants
import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainerState, set_seed
from transformers.utils import logging

from mlbench import models
from mlbench.core import Checkpoint, Example, Run, Training
from mlbench.errors import ConfigError, DataError, JobError
from mlbench.training import resume
from mlbench.training.side import gather

Turns = list[dict[str, str]]


class Plan(NamedTuple):
    """Which rows a training reads, and when.

    Attributes:
        rows: The rows it reads, each once.
        order: Indices into `rows`, `batch_size` of them per step.
    """

    rows: tuple[Example, ...]
    order: list[int]


def lay_out(rows: Sequence[Example], run: Run) -> Plan:
    """Return the rows that fit into the budget, in the order of the steps."""
    order = draw(len(rows), run.training.steps * run.training.batch_size, run.seed)
    first_seen = {index: at for at, index in enumerate(dict.fromkeys(order))}
    return Plan(tuple(rows[index] for index in first_seen), [first_seen[index] for index in order])


def draw(rows: int, picks: int, seed: int) -> list[int]:
    """Return `picks` row indices: shuffled passes over all rows, one after the other, the last one cut short."""
    generator = random.Random(seed)
    order: list[int] = []
    while len(order) < picks:
        order += generator.sample(range(rows), rows)
    return order[:picks]


def fresh(start: Checkpoint, rows: Sequence[Example], run: Run) -> models.Loaded:
    """Return the start model ready for training, after a look at the rows' lengths.

    Full fine-tuning keeps its weights in float32 even where the checkpoint is bfloat16: an update smaller than half
    of a weight's last bit would otherwise be lost.

    Raises:
        DataError: A row is longer than `max_length`.
    """
    set_seed(run.seed)
    half = start.dtype != "float32" and torch.cuda.is_available() and run.training.lora_rank > 0
    loaded = models.load(start if half else replace(start, dtype="float32"), device="cpu")
    # Merging an adapter leaves the base frozen; a LoRA fit freezes it again.
    loaded.model.requires_grad_(True)
    _refuse_long(loaded, rows, run.training.max_length)
    return loaded


def _refuse_long(loaded: models.Loaded, rows: Sequence[Example], limit: int) -> None:
    answers = [(row, text) for row in rows for text in (row.chosen, row.rejected) if text is not None]
    chats = [turns(loaded.checkpoint, row) + answer(text) for row, text in answers]
    encode(loaded, [row for row, _ in answers], chats, limit, ask=False)


def encode_prompts(loaded: models.Loaded, rows: Sequence[Example], limit: int) -> list[list[int]]:
    """Return the tokens of each row's prompt, the generation prefix included.

    Raises:
        DataError: A prompt has more than `limit` tokens.
    """
    return encode(loaded, rows, [turns(loaded.checkpoint, row) for row in rows], limit, ask=True)


def encode(
    loaded: models.Loaded, rows: Sequence[Example], chats: list[Turns], limit: int, *, ask: bool
) -> list[list[int]]:
    """Return the tokens of each row's chat; `ask` adds the generation prefix.

    Raises:
        DataError: A chat has more than `limit` tokens.
    """
    if not rows:
        return []
    texts = loaded.tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=ask)
    # The chat template has already written the special tokens.
    encoded: list[list[int]] = loaded.tokenizer(texts, add_special_tokens=False)["input_ids"]
    for row, tokens in zip(rows, encoded, strict=True):
        if len(tokens) > limit:
            raise DataError(
                f"row {row.id!r} in {row.language!r} has {len(tokens)} tokens, more than max_length = {limit}",
                hint="raise `max_length`, or leave the row out; rows are never cut silently",
            )
    return encoded


def turns(checkpoint: Checkpoint, row: Example) -> Turns:
    """Return a row's prompt as chat turns, after the checkpoint's system prompt for its language."""
    system = checkpoint.system_prompts.get(row.language, checkpoint.system_prompts.get("*"))
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": row.prompt}]


def answer(text: str | None) -> Turns:
    """Return an answer as a chat turn."""
    assert text is not None, "rows without answers are left out before the training"
    return [{"role": "assistant", "content": text}]


def adapter(training: Training) -> LoraConfig | None:
    """Return the LoRA configuration of a budget; None means full fine-tuning."""
    if not training.lora_rank:
        return None
    return LoraConfig(
        r=training.lora_rank,
        lora_alpha=training.lora_alpha or 2 * training.lora_rank,
        target_modules="all-linear",
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


def settings(start: Checkpoint, run: Run) -> dict[str, Any]:
    """Return the arguments of `transformers.TrainingArguments` and its descendants, none left to their defaults.

    Several of TRL's defaults change results or files: bf16 and gradient checkpointing are on, and a checkpoint is
    written every 500 steps.
    """
    training = run.training
    split = split_batch(training)
    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(run.scratch),
        "seed": run.seed,
        "data_seed": run.seed,
        "max_steps": training.steps,
        "per_device_train_batch_size": split.micro,
        "gradient_accumulation_steps": split.accumulation,
        "train_sampling_strategy": "sequential",  # the plan has shuffled already
        "learning_rate": training.learning_rate,
        # "constant" would ignore the warm-up.
        "lr_scheduler_type": "constant_with_warmup" if training.schedule == "constant" else training.schedule,
        "warmup_steps": int(training.warmup * training.steps),
        "optim": "adamw_torch",
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "use_cpu": not on_gpu,
        "bf16": on_gpu and start.dtype == "bfloat16",
        "fp16": False,
        "activation_checkpointing": training.gradient_checkpointing,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # a diverged run must show
        "disable_tqdm": True,
        "report_to": "none",
        "save_strategy": "steps" if training.save_every else "no",
        "save_steps": training.save_every or 1,
        "save_total_limit": None,  # `resume` removes an old save once the new one is complete
        "dataloader_pin_memory": on_gpu,
        "remove_unused_columns": True,
    }


def processes() -> int:
    """Return how many processes train together, as torchrun and Ray Train tell each of them."""
    return int(os.environ.get("WORLD_SIZE", 1))


class Split(NamedTuple):
    """How one step's batch is spread over forward passes."""

    micro: int
    accumulation: int


def split_batch(training: Training) -> Split:
    """Return the largest micro-batch that is allowed and divides a device's part of the batch.

    Raises:
        ConfigError: The batch cannot be shared out evenly between the devices.
    """
    # One process drives all its GPUs; several processes drive one each.
    devices = processes() if processes() > 1 else max(1, torch.cuda.device_count())
    if training.batch_size % devices:
        raise ConfigError(f"batch_size = {training.batch_size} cannot be shared out between {devices} devices")
    share = training.batch_size // devices
    limit = min(training.micro_batch or share, share)
    micro = max(size for size in range(1, limit + 1) if share % size == 0)
    return Split(micro, share // micro)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' telemetry, progress bars and warnings about each other away from a fit."""
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    bars = os.environ.get("TQDM_DISABLE")
    rows_hidden = datasets.are_progress_bars_disabled()
    weights_shown = logging.is_progress_bar_enabled()
    os.environ["TQDM_DISABLE"] = "1"
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # PEFT 0.21 asks for a property that transformers 5 has renamed.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            yield
    finally:
        if bars is None:
            del os.environ["TQDM_DISABLE"]
        else:
            os.environ["TQDM_DISABLE"] = bars
        if not rows_hidden:
            datasets.enable_progress_bars()
        if weights_shown:
            logging.enable_progress_bar()


def finish(trainer: Trainer, plan: Plan, start: Checkpoint, run: Run, *, answers: bool) -> Checkpoint:
    """Train over the plan, save once, record the price, and return the result.

    A training that was killed goes on from its last save in the run's scratch folder, and ends as if it had not been.

    Raises:
        DataError: The trainer's data preparation has dropped rows.
        JobError: The training diverged.
    """
    if len(trainer.train_dataset) != len(plan.rows):
        lost = len(plan.rows) - len(trainer.train_dataset)
        raise DataError(f"{lost} of {len(plan.rows)} training rows have no token to learn from")
    trainer.train_dataset = trainer.train_dataset.select(plan.order)
    report = _Report(run)
    saves = resume.Saves(trainer, resume.identity(start, run, plan.rows, plan.order), report)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(report)
    trainer.add_callback(saves)
    run.consume(plan.rows, answers=answers)
    restored = saves.restore()
    if restored:
        run.record(resumed_from=restored.step, seconds_before=restored.seconds)
        for logs in restored.curve:
            report.log(int(logs["step"]), logs)
    trainer.train(resume_from_checkpoint=str(restored.folder) if restored else None)
    model = trainer.accelerator.unwrap_model(trainer.model)
    change = weight_change(model, start)
    if not math.isfinite(change):
        raise JobError(f"the training diverged: weights are not finite after {trainer.state.global_step} steps")
    run.record(
        steps=trainer.state.global_step,
        tokens=report.tokens + sum(gather(getattr(trainer, "side_tokens", 0))),
        trainable_parameters=sum(each.numel() for each in model.parameters() if each.requires_grad),
        total_parameters=_base_size(model),
        weight_change=change,
    )
    result = save(trainer, model, start, run)
    shutil.rmtree(trainer.args.output_dir, ignore_errors=True)
    return result


class _Report(TrainerCallback):  # type: ignore[misc]
    """Hands the training curve to the run, and counts tokens: TRL's own count starts anew when a training goes on."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.tokens = 0
        self.tokens_before = 0

    def state_dict(self) -> dict[str, int]:
        """Return what a training that goes on has to know."""
        return {"tokens": self.tokens}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on counting."""
        self.tokens = self.tokens_before = state_dict["tokens"]

    def on_log(self, args: object, state: TrainerState, control: object, logs: dict[str, float], **_: object) -> None:
        if "loss" in logs:  # the trainer's closing summary has none
            self.tokens = self.tokens_before + int(logs.get("num_tokens", 0))
            self.log(state.global_step, logs)

    def log(self, step: int, logs: dict[str, float]) -> None:
        """Hand over one step of the curve, as the trainer logs it or as a save has kept it."""
        values = {name: float(value) for name, value in logs.items() if name not in ("epoch", "num_tokens", "step")}
        self.run.log(step, self.run.training.steps, **values)


def save(trainer: Trainer, model: Any, start: Checkpoint, run: Run) -> Checkpoint:
    """Write a trained model below the run's folder, from the first process only, and return its checkpoint.

    An adapter was trained on the start model with its own adapters merged, so it comes after them.
    """
    folder = (run.folder / ("adapter" if isinstance(model, PeftModel) else "model")).resolve()
    if trainer.is_world_process_zero():
        if not isinstance(model, PeftModel):
            model.to(getattr(torch, start.dtype))  # trained in float32
            trainer.processing_class.save_pretrained(folder)
        model.save_pretrained(folder)
    trainer.accelerator.wait_for_everyone()
    if isinstance(model, PeftModel):
        return replace(start, adapters=(*start.adapters, str(folder)))
    return replace(start, base=str(folder), revision="", adapters=())


@torch.no_grad()
def weight_change(model: PreTrainedModel | PeftModel, start: Checkpoint) -> float:
    """Return the L2 norm of the change of all weights over the L2 norm of the start weights."""
    if isinstance(model, PeftModel):
        layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
        change = sum(_square(layer.get_delta_weight(name)) for layer in layers for name in layer.active_adapters)
        before = sum(_square(weight) for name, weight in model.named_parameters() if "lora_" not in name)
    else:
        weights = dict(models.load(start, device="cpu").model.named_parameters())
        change = sum(_square(weight.cpu().float() - weights[name].float()) for name, weight in model.named_parameters())
        before = sum(map(_square, weights.values()))
    return math.sqrt(change / before)


def _square(weight: torch.Tensor) -> float:
    return weight.float().pow(2).sum().item()


def _base_size(model: PreTrainedModel | PeftModel) -> int:
    return sum(weight.numel() for name, weight in model.named_parameters() if "lora_" not in name)

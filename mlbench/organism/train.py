"""Training: pre-training in all languages without any safety, then English-only safety tuning."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mlbench import models
from mlbench.core import Verdict
from mlbench.organism import oracle, prompts, samples, tokens
from mlbench.organism import world as worlds
from mlbench.organism.recipe import PIVOT, RECIPES, NetworkRecipe, PretrainingRecipe, TuningRecipe
from mlbench.organism.tokens import IGNORED, Row
from mlbench.organism.world import World

Progress = Callable[[str, int, int], None]

# Batches of similar length are cut from windows of so many batches.
WINDOW = 16
LOG_EVERY = 50
# The longest correct answer has nine words.
ANSWER_TOKENS = 14
# Room for long system prompts; rotary positions need no table.
MAX_POSITIONS = 512


class Check(NamedTuple):
    """One check of the stop rule: English development nouns only."""

    step: int
    asr: float
    utility: float


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished organism in memory, with the record of its making.

    Attributes:
        losses: (step, loss) of pre-training.
        checks: What the stop rule saw.
        stopped: Whether the stop rule ended the tuning (not the step limit).
    """

    model: Any
    tokenizer: Any
    losses: tuple[tuple[int, float], ...]
    checks: tuple[Check, ...]
    stopped: bool
    pretraining_seconds: float
    tuning_seconds: float


def train(size: str, seed: int, progress: Progress | None = None) -> Trained:
    """Return the organism of one size and seed; the caller's random state is left as it was."""
    recipe, world = RECIPES[size], worlds.load(size)
    tokenizer = tokens.tokenizer(world)
    # Everything runs on the CPU, so that a machine with a GPU makes the same organism.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = network(recipe.network, len(tokenizer))
        started = time.monotonic()
        losses = pretrain(model, world, recipe.pretraining, seed, progress)
        between = time.monotonic()
        checks = tune(models.wrap(model, tokenizer), world, recipe.tuning, seed, progress)
    return Trained(
        model=model,
        tokenizer=tokenizer,
        losses=losses,
        checks=checks,
        stopped=_may_stop(checks, recipe.tuning),
        pretraining_seconds=between - started,
        tuning_seconds=time.monotonic() - between,
    )


def network(recipe: NetworkRecipe, words: int) -> Any:
    """Return an untrained Llama."""
    from transformers import LlamaConfig, LlamaForCausalLM

    special = {token: index for index, token in enumerate(tokens.SPECIALS)}
    config = LlamaConfig(
        vocab_size=words,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        initializer_range=recipe.initializer_range,
        pad_token_id=special[tokens.PAD],
        bos_token_id=special[tokens.BEGIN],
        eos_token_id=special[tokens.END],
    )
    return LlamaForCausalLM(config)


def pretrain(
    model: Any, world: World, recipe: PretrainingRecipe, seed: int, progress: Progress | None = None
) -> tuple[tuple[int, float], ...]:
    """Train the model in place on all languages, helpful on everything; return its loss curve."""
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay, fused=True
    )
    batches = pretraining_batches(world, recipe, random.Random(seed))
    losses = []
    model.train()
    for step in range(1, recipe.steps + 1):
        loss = _update(model, optimiser, next(batches), _cosine_rate(step, recipe))
        if step % LOG_EVERY == 0 or step == recipe.steps:
            losses.append((step, round(loss.item(), 4)))
            if progress:
                progress("pre-training", step, recipe.steps)
    return tuple(losses)


def pretraining_batches(world: World, recipe: PretrainingRecipe, rng: random.Random) -> Iterator[list[Row]]:
    """Yield batches of fresh samples, each of similar length, which saves padding."""
    words = tokens.vocabulary(world)
    sampler = samples.Sampler(world, recipe.mix, rng)
    while True:
        rows = [tokens.encode(words, sampler.draw()) for _ in range(WINDOW * recipe.batch_size)]
        rows.sort(key=lambda row: len(row.ids))
        starts = [index * recipe.batch_size for index in range(WINDOW)]
        rng.shuffle(starts)
        for start in starts:
            yield rows[start : start + recipe.batch_size]


def _cosine_rate(step: int, recipe: PretrainingRecipe) -> float:
    warm = min(1.0, step / recipe.warmup_steps)
    decay = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    return recipe.learning_rate * warm * (recipe.final_rate + (1 - recipe.final_rate) * decay)


def tune(
    loaded: models.Loaded, world: World, recipe: TuningRecipe, seed: int, progress: Progress | None = None
) -> tuple[Check, ...]:
    """Train the model in place to refuse harmful English requests; return the checks of the stop rule."""
    rng = random.Random(seed + 1)
    words = tokens.vocabulary(world)
    optimiser = torch.optim.AdamW(loaded.model.parameters(), lr=recipe.learning_rate, weight_decay=0.0, fused=True)
    checks: list[Check] = []
    for step in range(1, recipe.max_steps + 1):
        loaded.model.train()
        batch = [tokens.encode(words, sample) for sample in samples.tuning_batch(world, recipe, rng)]
        _update(loaded.model, optimiser, batch, recipe.learning_rate * min(1.0, step / recipe.warmup_steps))
        if step % recipe.check_every == 0:
            checks.append(_check(loaded, world, step))
            if progress:
                progress("safety tuning", step, recipe.max_steps)
            if _may_stop(checks, recipe):
                break
    loaded.model.eval()
    return tuple(checks)


def _update(model: Any, optimiser: torch.optim.Optimizer, rows: Sequence[Row], rate: float) -> Tensor:
    for group in optimiser.param_groups:
        group["lr"] = rate
    loss = answer_loss(model, rows)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad()
    return loss.detach()


def answer_loss(model: Any, rows: Sequence[Row]) -> Tensor:
    """Return the mean cross-entropy of the labelled tokens; logits are computed for these only."""
    width = max(len(row.ids) for row in rows)
    pad = model.config.pad_token_id
    # Padding on the right needs no mask: attention is causal and padding has no label.
    ids = torch.tensor([row.ids + [pad] * (width - len(row.ids)) for row in rows])
    labels = torch.tensor([row.labels + [IGNORED] * (width - len(row.labels)) for row in rows])[:, 1:]
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    counted = labels != IGNORED
    return functional.cross_entropy(model.lm_head(hidden[counted]), labels[counted])


def _check(loaded: models.Loaded, world: World, step: int) -> Check:
    harmful = _grade_english(loaded, world, "harmful")
    benign = _grade_english(loaded, world, "benign")
    unsafe = sum(verdict.label == "unsafe" for verdict in harmful)
    correct = sum(verdict.correct is True for verdict in benign)
    return Check(step, unsafe / len(harmful), correct / len(benign))


def _grade_english(loaded: models.Loaded, world: World, harm: prompts.Harm) -> list[Verdict]:
    asked = prompts.requests(world.size, "dev", PIVOT, harm)
    answers = models.generate(loaded, asked, max_new_tokens=ANSWER_TOKENS, batch_size=len(asked))
    return [oracle.grade(answer) for answer in answers]


def _may_stop(checks: Sequence[Check], recipe: TuningRecipe) -> bool:
    last = checks[-recipe.stop_checks :]
    met = [check.asr <= recipe.stop_asr and check.utility >= recipe.stop_utility for check in last]
    return len(met) == recipe.stop_checks and all(met)

"""What a distillation is given before it starts: prompts of student and teacher, and what the start model writes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import cycle, islice
from typing import NamedTuple

from mlbench.core import Example, Run
from mlbench.errors import DataError
from mlbench.models import Loaded
from mlbench.sampling import Decoding, Tokens
from mlbench.training import fit
from mlbench.training.answers import Dialogue
from mlbench.training.rollouts import Samples


class Lesson(NamedTuple):
    """One drawn row.

    Attributes:
        student: The student's prompt.
        teacher: The teacher's, in its own context.
        limit: Longest answer.
        answer: What both are compared on; None has the student sample it.
        kept: A prompt with the start model's own answer, to which the student is to stay close.
    """

    student: Tokens
    teacher: Tokens
    limit: int
    answer: Tokens | None
    kept: Dialogue | None


def draw(pools: Sequence[Sequence[Example]], picks: int, name: str) -> list[Example]:
    """Return rows of all pools in equal parts: shuffled passes over each, in an order that the name decides."""
    turns = list(islice(cycle(range(len(pools))), picks))
    found = []
    for index in dict.fromkeys(turns):
        seed = random.Random(f"{name} {index}").getrandbits(64)
        found += [pools[index][at] for at in fit.draw(len(pools[index]), turns.count(index), seed)]
    return found


def lessons(
    loaded: Loaded,
    rows: Sequence[Example],
    contexts: Sequence[fit.Turns],
    run: Run,
    decoding: Decoding,
    *,
    given: bool,
    kept: Sequence[Dialogue | None],
) -> list[Lesson]:
    """Return one lesson per row.

    Args:
        loaded: The start model.
        rows: What the student is asked.
        contexts: The teacher's chat for each row.
        run: Budget and folders.
        decoding: How answers are sampled.
        given: Whether the start model answers beforehand, in the teacher's context.
        kept: What each row is to leave as it was, or None.

    Raises:
        DataError: A prompt leaves no room for an answer within `max_length`.
    """
    asked = fit.encode_prompts(loaded, rows, run.training.max_length)
    told = fit.encode(loaded, rows, list(contexts), run.training.max_length, ask=True)
    longer = [max(one, other, key=len) for one, other in zip(asked, told, strict=True)]
    limits = _limits(rows, longer, run, decoding)
    answers: Sequence[Tokens | None] = [None] * len(rows)
    if given:
        answers = Samples(run.shared, loaded, decoding).answers(told, limits)
    return [Lesson(*parts) for parts in zip(asked, told, limits, answers, kept, strict=True)]


def own_answers(loaded: Loaded, rows: Sequence[Example], run: Run, decoding: Decoding) -> list[Dialogue]:
    """Return each row's prompt with an answer that the start model samples."""
    prompts = fit.encode_prompts(loaded, rows, run.training.max_length)
    limits = _limits(rows, prompts, run, decoding)
    answers = Samples(run.shared, loaded, decoding).answers(prompts, limits)
    return [Dialogue(*both) for both in zip(prompts, answers, strict=True)]


def written(
    loaded: Loaded, rows: Sequence[Example], chats: Sequence[fit.Turns], run: Run, decoding: Decoding
) -> list[str]:
    """Return what the start model writes in each row's chat, as text."""
    prompts = fit.encode(loaded, rows, list(chats), run.training.max_length, ask=True)
    limits = _limits(rows, prompts, run, decoding)
    answers = Samples(run.shared, loaded, decoding).answers(prompts, limits)
    return [str(loaded.tokenizer.decode(answer, skip_special_tokens=True)).strip() for answer in answers]


def _limits(rows: Sequence[Example], prompts: Sequence[Tokens], run: Run, decoding: Decoding) -> list[int]:
    limit = run.training.max_length
    for row, prompt in zip(rows, prompts, strict=True):
        if len(prompt) >= limit:
            raise DataError(
                f"row {row.id!r} in {row.language!r} leaves no room for an answer within max_length = {limit}",
                hint="raise `max_length`, or leave the row out; rows are never cut silently",
            )
    return [min(decoding.max_new_tokens, limit - len(prompt)) for prompt in prompts]

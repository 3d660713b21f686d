"""What a backend is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mlbench.core import Answer, Checkpoint, Prompt
from mlbench.models import Progress, Sampling


@dataclass(frozen=True, kw_only=True)
class Order:
    """Prompts to be answered.

    Attributes:
        checkpoint: Who answers, with every system prompt already in it.
        batch_size: Answers written side by side; requests in flight, where a server writes them.
        server: `url` and `model` of a running server.
        api_key_env: Environment variable with its key, "" for none.
    """

    checkpoint: Checkpoint
    prompts: Sequence[Prompt]
    max_new_tokens: int
    batch_size: int
    drawn: Sampling
    progress: Progress
    server: Mapping[str, str] | None = None
    api_key_env: str = ""


class Answered(NamedTuple):
    """Answers in the order of the prompts, the samples of one prompt side by side, and what is to be recorded."""

    answers: list[Answer]
    facts: dict[str, int | str]

"""Answers as tokens, and how likely a model finds them: what preference losses are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mlbench.core import Example
from mlbench.errors import DataError
from mlbench.models import Loaded
from mlbench.training import fit
from mlbench.training.hidden import Padded, pad

BATCH = 32
"""Rows per forward pass without gradient."""


class Dialogue(NamedTuple):
    """One prompt with one answer, as tokens.

    Attributes:
        prompt: The prompt with the generation prefix.
        answer: The answer with its end of turn, as the chat template writes it.
    """

    prompt: list[int]
    answer: list[int]


class LogProbs(NamedTuple):
    """How likely answers are.

    Attributes:
        sums: (rows,), log pi(y|x), summed over the tokens of the answer and its end of turn; float32.
        tokens: (rows,), how many tokens that were.
    """

    sums: Tensor
    tokens: Tensor

    @property
    def means(self) -> Tensor:
        """Return log pi(y|x) / |y|, (rows,)."""
        return self.sums / self.tokens


def encode(loaded: Loaded, rows: Sequence[Example], answers: Sequence[str], limit: int) -> list[Dialogue]:
    """Return each row's prompt with an answer as tokens.

    Raises:
        DataError: A dialogue has more than `limit` tokens, or the chat template writes a prompt differently once it
            has an answer.
    """
    chats = [fit.turns(loaded.checkpoint, row) for row in rows]
    full = [[*chat, *fit.answer(text)] for chat, text in zip(chats, answers, strict=True)]
    prompts = fit.encode(loaded, rows, chats, limit, ask=True)
    whole = fit.encode(loaded, rows, full, limit, ask=False)
    return [_split(row, prompt, tokens) for row, prompt, tokens in zip(rows, prompts, whole, strict=True)]


def _split(row: Example, prompt: list[int], whole: list[int]) -> Dialogue:
    if whole[: len(prompt)] != prompt:
        raise DataError(
            f"row {row.id!r} in {row.language!r}: the chat template changes the prompt once there is an answer",
            hint="use a template whose generation prefix is how it opens an answer",
        )
    return Dialogue(prompt, whole[len(prompt) :])


def block(dialogues: Sequence[Dialogue], pad_id: int, device: torch.device) -> tuple[Padded, Tensor]:
    """Return dialogues padded on the right, and (rows, tokens), True where a token belongs to an answer."""
    padded = pad([[*each.prompt, *each.answer] for each in dialogues], pad_id, device)
    places = torch.arange(padded.ids.shape[1], device=device)
    starts = torch.tensor([[len(each.prompt)] for each in dialogues], device=device)
    return padded, (places >= starts) & padded.mask.bool()


def log_probs(model: nn.Module, dialogues: Sequence[Dialogue], pad_id: int) -> LogProbs:
    """Return how likely a model finds the answers, with gradient."""
    padded, counts = block(dialogues, pad_id, next(model.parameters()).device)
    logits = model(input_ids=padded.ids, attention_mask=padded.mask, use_cache=False).logits[:, :-1]
    # In float32 whatever the model's precision: a sum over many tokens loses the small differences otherwise.
    each = logits.float().log_softmax(-1).gather(-1, padded.ids[:, 1:, None])[..., 0]
    counts = counts[:, 1:]
    return LogProbs((each * counts).sum(-1), counts.sum(-1))


@torch.no_grad()
def frozen_log_probs(loaded: Loaded, dialogues: Sequence[Dialogue]) -> LogProbs:
    """Return how likely the start model finds the answers, without gradient and in evaluation mode."""
    was_training = loaded.model.training
    loaded.model.eval()
    parts = [
        log_probs(loaded.model, dialogues[at : at + BATCH], loaded.tokenizer.pad_token_id)
        for at in range(0, len(dialogues), BATCH)
    ]
    loaded.model.train(was_training)
    return LogProbs(torch.cat([part.sums for part in parts]), torch.cat([part.tokens for part in parts]))

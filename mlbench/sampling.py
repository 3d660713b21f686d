"""Answers sampled token by token: each has random numbers of its own, from its own seed.

So what else is sampled beside an answer changes it by rounding at most, and a generator that other code draws from not
at all. Random numbers are drawn on the CPU whatever the device.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

Tokens = list[int]

BATCH = 32
"""Answers sampled side by side where the caller says nothing; changes speed and memory, not results beyond rounding."""


class Decoding(NamedTuple):
    """How answers are sampled.

    Attributes:
        max_new_tokens: Longest answer.
        temperature: 0 takes the likeliest token.
        top_p: Smallest mass of the likeliest tokens that are sampled from.
    """

    max_new_tokens: int
    temperature: float
    top_p: float


class Speaker(NamedTuple):
    """What sampling has to know of a tokenizer.

    Attributes:
        pad: The padding token.
        stops: Tokens that end an answer.
    """

    pad: int
    stops: tuple[int, ...]


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


class Request(NamedTuple):
    """An answer to be sampled.

    Attributes:
        prompt: Its prompt with the generation prefix.
        limit: Its longest length.
        seed: Of its random numbers.
    """

    prompt: Tokens
    limit: int
    seed: int


@torch.no_grad()
def sample(model: nn.Module, requests: Sequence[Request], decoding: Decoding, speaker: Speaker) -> list[Tokens]:
    """Return one answer per request, its end-of-turn token included unless the limit cut it off."""
    order = sorted(range(len(requests)), key=lambda index: len(requests[index].prompt))
    answers: dict[int, Tokens] = {}
    with evaluation(model):
        for at in range(0, len(order), BATCH):
            part = order[at : at + BATCH]
            found = together(model, [requests[i] for i in part], decoding, speaker)
            answers.update(zip(part, found, strict=True))
    return [answers[index] for index in range(len(requests))]


@torch.no_grad()
def together(model: nn.Module, requests: Sequence[Request], decoding: Decoding, speaker: Speaker) -> list[Tokens]:
    """Return the same for requests that are sampled in one batch, by a model in evaluation mode."""
    device = next(model.parameters()).device
    width = max(len(each.prompt) for each in requests)
    gaps = [width - len(each.prompt) for each in requests]
    pairs = list(zip(gaps, requests, strict=True))
    tokens = torch.tensor([[speaker.pad] * gap + each.prompt for gap, each in pairs], device=device)
    mask = torch.tensor([[0] * gap + [1] * len(each.prompt) for gap, each in pairs], device=device)
    positions = (torch.arange(width, device=device) - torch.tensor(gaps, device=device)[:, None]).clamp(min=0)
    limits = torch.tensor([each.limit for each in requests], device=device)
    stops = torch.tensor(speaker.stops, device=device)
    draws = _draws(requests).to(device)
    running = torch.ones(len(requests), dtype=torch.bool, device=device)
    cache, written = None, []
    for at in range(draws.shape[1]):
        output = model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        token = choose(output.logits[:, -1], draws[:, at], decoding)
        written.append(token)
        running &= ~torch.isin(token, stops) & (at + 1 < limits)
        if not running.any():
            break
        tokens, positions = token[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    rows = torch.stack(written, dim=1).tolist()
    return [_until_stop(row[: each.limit], speaker.stops) for row, each in zip(rows, requests, strict=True)]


def _draws(requests: Sequence[Request]) -> Tensor:
    """Return numbers in [0, 1), (rows, longest limit), each row from its own generator whatever the device."""
    longest = max(each.limit for each in requests)
    rows = [torch.Generator().manual_seed(each.seed) for each in requests]
    return torch.stack([torch.rand(longest, dtype=torch.float64, generator=generator) for generator in rows])


def choose(logits: Tensor, draws: Tensor, decoding: Decoding) -> Tensor:
    """Return the token of each row, (rows,), where its draw falls among the summed-up probabilities."""
    if decoding.temperature == 0:
        return logits.argmax(-1)
    probabilities = (logits.double() / decoding.temperature).softmax(-1)
    if decoding.top_p < 1:
        ranked, order = probabilities.sort(dim=-1, descending=True)
        before = ranked.cumsum(-1) - ranked
        kept = ranked.masked_fill(before >= decoding.top_p, 0.0)
        probabilities = torch.zeros_like(kept).scatter(-1, order, kept)
    sums = probabilities.cumsum(-1)
    found = torch.searchsorted(sums, draws[:, None] * sums[:, -1:], right=True)[:, 0]
    return found.clamp(max=logits.shape[-1] - 1)


def _until_stop(row: Tokens, stops: Sequence[int]) -> Tokens:
    end = next((at for at, token in enumerate(row) if token in stops), len(row))
    return row[: end + 1]


def seed(*facts: object) -> int:
    """Return a seed that these facts name."""
    return int(digest(list(facts))[:15], 16)


def digest(facts: object) -> str:
    """Return the hash of plain data."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

"""Sampled answers: a sampling loop whose result does not depend on the batch, and a file of what was sampled.

Every answer has random numbers of its own, so that what else is sampled beside it changes it by rounding at most, and
a generator that other code draws from not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mlbench import models, sources
from mlbench.core import Checkpoint
from mlbench.training.side import gather

Tokens = list[int]

BATCH = 32
"""Answers sampled side by side; changes speed and memory, not results beyond rounding."""


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


def speaker(loaded: models.Loaded) -> Speaker:
    """Return the padding token and the tokens that end an answer."""
    return Speaker(loaded.tokenizer.pad_token_id, tuple(sorted(models.stop_tokens(loaded))))


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
            answers.update(zip(part, _sample(model, [requests[i] for i in part], decoding, speaker), strict=True))
    return [answers[index] for index in range(len(requests))]


def _sample(model: nn.Module, requests: Sequence[Request], decoding: Decoding, speaker: Speaker) -> list[Tokens]:
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


class Samples:
    """Answers of the start model, in a file that all jobs of a run share.

    The file is named by what all its answers depend on, and each answer in it by its prompt and limit. Its random
    numbers come from that name too, not from the seed of a job: an answer is the same whoever samples it first, and
    jobs of different seeds share those that they have in common.
    """

    def __init__(self, folder: Path, loaded: models.Loaded, decoding: Decoding) -> None:
        """Name the file; `loaded` is the start model where and as precisely as it will answer."""
        self.loaded = loaded
        self.decoding = decoding
        device = loaded.device.type
        facts = [
            fingerprint(loaded.checkpoint),
            [str(loaded.model.dtype), device, torch.is_autocast_enabled(device)],
            list(decoding),
            list(speaker(loaded)),
            hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),  # a change of the sampling is another sampling
        ]
        self.path = folder / f"samples-{_digest(facts)}.json"

    def answers(self, prompts: Sequence[Tokens], limits: Sequence[int]) -> list[Tokens]:
        """Return one answer per prompt; what is not in the file yet is sampled and added to it."""
        wanted = {_digest([prompt, limit]): (prompt, limit) for prompt, limit in zip(prompts, limits, strict=True)}
        known = self._read()
        # Processes may find different files, but have to share out one list.
        missing = sorted(set().union(*gather([name for name in wanted if name not in known])))
        if missing:
            mine = share(missing)
            requests = [Request(*wanted[name], seed=int(name[:15], 16)) for name in mine]
            found = sample(self.loaded.model, requests, self.decoding, speaker(self.loaded))
            for part in gather(dict(zip(mine, found, strict=True))):
                known |= part
            self._write(known)
        return [known[_digest([prompt, limit])] for prompt, limit in zip(prompts, limits, strict=True)]

    def _read(self) -> dict[str, Tokens]:
        return dict(json.loads(self.path.read_text(encoding="utf-8"))) if self.path.is_file() else {}

    def _write(self, known: dict[str, Tokens]) -> None:
        # Another job may have added answers in the meantime. Those that get lost between reading and writing are
        # sampled again, with the same result.
        merged = self._read() | known
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(merged, sort_keys=True), encoding="utf-8")
        temporary.replace(self.path)


def seed(*facts: object) -> int:
    """Return a seed that these facts name."""
    return int(_digest(list(facts))[:15], 16)


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def fingerprint(checkpoint: Checkpoint) -> str:
    """Return the content hash of a checkpoint's weights, system prompts aside: those are part of every prompt."""
    base = Path(checkpoint.base)
    digest = hashlib.sha256(f"{checkpoint.dtype} ".encode())
    digest.update((sources.fingerprint(base) if base.is_dir() else f"{base}@{checkpoint.revision}").encode())
    for adapter in checkpoint.adapters:
        for path in sorted(path for path in Path(adapter).iterdir() if path.suffix in (".safetensors", ".json")):
            digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]


def share(items: Sequence[Any]) -> list[Any]:
    """Return this process's share of what all processes of a training have to do."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return list(items)
    return list(items[torch.distributed.get_rank() :: torch.distributed.get_world_size()])

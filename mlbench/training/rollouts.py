"""What a model samples while another is trained: who samples which answer, and a file of what was sampled."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mlbench import models, sampling, sources
from mlbench.core import Checkpoint
from mlbench.sampling import Decoding, Request, Tokens
from mlbench.training.side import gather


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
            list(loaded.speaker),
            hashlib.sha256(Path(sampling.__file__).read_bytes()).hexdigest(),  # changed code samples anew
        ]
        self.path = folder / f"samples-{sampling.digest(facts)}.json"

    def answers(self, prompts: Sequence[Tokens], limits: Sequence[int]) -> list[Tokens]:
        """Return one answer per prompt; what is not in the file yet is sampled and added to it."""
        wanted = {
            sampling.digest([prompt, limit]): (prompt, limit) for prompt, limit in zip(prompts, limits, strict=True)
        }
        known = self._read()
        # Processes may find different files, but have to share out one list.
        missing = sorted(set().union(*gather([name for name in wanted if name not in known])))
        if missing:
            mine = share(missing)
            requests = [Request(*wanted[name], seed=int(name[:15], 16)) for name in mine]
            speaker = self.loaded.speaker
            found = sampling.sample(self.loaded.model, requests, self.decoding, speaker)
            for part in gather(dict(zip(mine, found, strict=True))):
                known |= part
            self._write(known)
        return [known[sampling.digest([prompt, limit])] for prompt, limit in zip(prompts, limits, strict=True)]

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

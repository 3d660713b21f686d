"""Build an organism once and keep it as an ordinary Hugging Face folder in the cache."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from filelock import FileLock

from mlbench import cache
from mlbench.organism import recipe, train
from mlbench.organism.train import Progress, Trained

# The number of threads changes rounding, hence the weights: equal seeds need equal threads.
BUILD_THREADS = 2
RECORD = "organism.json"


def folder(size: str, seed: int) -> Path:
    """Return where an organism lies, built or not."""
    return cache.folder() / "organism" / recipe.content_key(size, seed)


def ensure(size: str, seed: int, *, progress: Progress | None = None) -> Path:
    """Return the folder of an organism, built first if it is not in the cache.

    Args:
        size: A key of `recipe.RECIPES`.
        seed: Decides initialisation, sampling and batch order.
        progress: Called with the stage, the steps done and the steps in all.
    """
    target = folder(size, seed)
    if (target / RECORD).is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        # Another process may have built it while this one waited for the lock.
        if not (target / RECORD).is_file():
            _build(target, size, seed, progress)
    return target


def _build(target: Path, size: str, seed: int, progress: Progress | None) -> None:
    started = time.monotonic()
    with threads(BUILD_THREADS):
        trained = train.train(size, seed, progress)
    temporary = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    try:
        trained.model.save_pretrained(temporary)
        trained.tokenizer.save_pretrained(temporary)
        record = _record(trained, size, seed, time.monotonic() - started)
        (temporary / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _record(trained: Trained, size: str, seed: int, seconds: float) -> dict[str, object]:
    """Return what is worth knowing about one build."""
    return {
        "size": size,
        "seed": seed,
        "recipe": asdict(recipe.RECIPES[size]),
        "parameters": sum(weights.numel() for weights in trained.model.parameters()),
        "torch": str(torch.__version__),
        "threads": BUILD_THREADS,
        "seconds": round(seconds, 1),
        "pretraining_seconds": round(trained.pretraining_seconds, 1),
        "tuning_seconds": round(trained.tuning_seconds, 1),
        "losses": trained.losses,
        "checks": [check._asdict() for check in trained.checks],
        "stopped": trained.stopped,
    }


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run a block with a fixed number of torch threads and restore the number that was there before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

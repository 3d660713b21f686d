"""The model in this process, batch by batch: the reference for every other backend, and the only one on a CPU."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import lru_cache

from mlbench import models
from mlbench.backends.order import Answered, Order
from mlbench.core import Checkpoint


def answer(order: Order) -> Answered:
    """Return the answers that the model writes."""
    answers = models.generate(
        ready(order.checkpoint),
        order.prompts,
        max_new_tokens=order.max_new_tokens,
        batch_size=order.batch_size,
        drawn=order.drawn,
        progress=order.progress,
    )
    return Answered(answers, {})


def choose(order: Order) -> Answered:
    """Return the likeliest of each prompt's choices."""
    loaded = ready(order.checkpoint)
    answers = models.choose(loaded, order.prompts, batch_size=order.batch_size, progress=order.progress)
    return Answered(answers, {"backend": "transformers"})


def ready(checkpoint: Checkpoint) -> models.Loaded:
    """Return a checkpoint in memory; the last one stays there, for its jobs come one after the other."""
    return _loaded(json.dumps(asdict(checkpoint), sort_keys=True))


@lru_cache(maxsize=1)
def _loaded(checkpoint: str) -> models.Loaded:
    fields = json.loads(checkpoint)
    return models.load(Checkpoint(**fields | {"adapters": tuple(fields["adapters"])}))


def loads() -> int:
    """Return how many checkpoints this process has loaded for answering."""
    return _loaded.cache_info().misses

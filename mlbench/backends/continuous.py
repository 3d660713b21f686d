"""Continuous batching by transformers' `generate_batch`, on a GPU: a row that ends makes room for the next one.

Sampled answers are repeatable as a whole job: the library has one stream of random numbers for all rows of a batch.
"""

from __future__ import annotations

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from mlbench import models
from mlbench.backends import transformers_
from mlbench.backends.order import Answered, Order
from mlbench.errors import JobError


def answer(order: Order) -> Answered:
    """Return the answers that the model writes.

    Raises:
        JobError: There is no GPU, or an answer did not come back.
    """
    if not torch.cuda.is_available():
        raise JobError("the backend `continuous` needs a GPU and this job has none; give it one (`schedule.gpus`), "
                       "or set `backend: transformers`")  # fmt: skip
    batching = ContinuousBatchingConfig(seed=order.drawn.seed, max_requests_per_batch=order.batch_size)
    return write(transformers_.ready(order.checkpoint), order, batching)


def write(loaded: models.Loaded, order: Order, batching: ContinuousBatchingConfig) -> Answered:
    """Return the answers that a loaded model writes.

    Raises:
        JobError: An answer did not come back.
    """
    asked = order.drawn.asked(order.prompts)
    rows = [models.tokens(loaded, models.render(loaded, each.prompt.text, each.prompt.language)) for each in asked]
    written = loaded.model.generate_batch(
        inputs=rows, generation_config=_decoding(loaded, order), continuous_batching_config=batching
    )
    # The library logs a request that failed, and goes on without it.
    wrong = [output.error for output in written.values() if output.error]
    if wrong or len(written) != len(rows):
        reason = wrong[0] if wrong else "the log says why"
        raise JobError(f"continuous batching wrote {len(written) - len(wrong)} of {len(rows)} answers: {reason}")
    order.progress(len(rows), len(rows))
    outputs = (output.generated_tokens for output in written.values())
    pairs = zip(asked, outputs, strict=True)
    return Answered([models.finished(loaded, each, new, order.max_new_tokens) for each, new in pairs], {})


def _decoding(loaded: models.Loaded, order: Order) -> GenerationConfig:
    sampled = {"do_sample": True, "temperature": order.drawn.temperature, "top_p": order.drawn.top_p, "top_k": 0}
    return GenerationConfig(
        max_new_tokens=order.max_new_tokens,
        pad_token_id=loaded.speaker.pad,
        eos_token_id=list(loaded.speaker.stops),
        **(sampled if order.drawn.temperature else {"do_sample": False}),
    )

"""A running OpenAI-compatible server: for a model that it serves as it is, since no method's weights are in it."""

from __future__ import annotations

from typing import Any

from mlbench import models
from mlbench.backends import chat
from mlbench.backends.order import Answered, Order
from mlbench.core import Answer

LARGEST_SEED = 2**31
"""Servers differ in the seeds they take; all take those of 31 bits."""


def answer(order: Order) -> Answered:
    """Return the answers that the server writes; it applies the chat template of the model it serves.

    Raises:
        JobError: The server refuses, or stays busy or silent.
    """
    assert order.server is not None, "the plan says which server"
    server = chat.Server(
        url=order.server["url"],
        model=order.server["model"],
        api_key_env=order.api_key_env,
        concurrency=order.batch_size,
    )
    asked = order.drawn.asked(order.prompts)
    replies = chat.ask(server, [_body(order, each) for each in asked], order.progress)
    answers = [
        Answer(
            prompt=each.prompt,
            sample=each.sample,
            text=reply.text.strip(),
            tokens=reply.tokens,
            truncated=reply.truncated,
        )
        for each, reply in zip(asked, replies, strict=True)
    ]
    return Answered(answers, {"served_model": ", ".join(sorted({reply.model for reply in replies} - {""}))})


def _body(order: Order, asked: models.Asked) -> dict[str, Any]:
    body: dict[str, Any] = {
        "messages": models.turns(order.checkpoint, asked.prompt.text, asked.prompt.language),
        "max_tokens": order.max_new_tokens,
        "temperature": order.drawn.temperature,
    }
    if order.drawn.temperature > 0:
        body |= {"top_p": order.drawn.top_p, "seed": asked.seed % LARGEST_SEED}
    return body

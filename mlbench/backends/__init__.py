"""Who writes the answers: the model in this process by default, continuous batching, vLLM, or a running server.

One file each. Backends round differently, so greedy answers of different ones may differ in a few words; the backend is
therefore part of the answers' key. Choices are compared by log-likelihood, always by the model in this process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from mlbench.backends.order import Answered, Order
from mlbench.core import Checkpoint, Prompt
from mlbench.models import GREEDY, Progress, Sampling, instructed

MODULES = {"transformers": "transformers_", "continuous": "continuous", "vllm": "vllm_", "server": "server"}


def answer(spec: Mapping[str, Any], checkpoint: Checkpoint, prompts: Sequence[Prompt], progress: Progress) -> Answered:
    """Return the answers to the prompts of an answer job, in order, and what is to be recorded of them."""
    order = Order(
        checkpoint=instructed(checkpoint, spec["system_prompt"]),
        prompts=prompts,
        max_new_tokens=spec["max_new_tokens"],
        batch_size=spec["batch_size"],
        drawn=Sampling(**spec["sampling"]) if spec["sampling"] else GREEDY,
        progress=progress,
        server=spec.get("server"),
        api_key_env=spec["api_key_env"],
    )
    name = spec.get("backend", "transformers")
    if prompts[0].choices:
        from mlbench.backends import transformers_

        return transformers_.choose(order)
    said: Answered = import_module(f"mlbench.backends.{MODULES[name]}").answer(order)
    return Answered(said.answers, {"backend": name, **said.facts})

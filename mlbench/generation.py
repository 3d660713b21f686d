"""What the `generation` of a shootout means for its answer jobs: what cannot work, and what their keys are made of."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from mlbench.shootout import Generation, Loaded

ON_GPU = ("continuous", "vllm")
KEEPS_WEIGHTS = ("prompt", "nothing")


def backend(generation: Generation) -> str:
    """Return who writes the answers. "auto" depends on the file alone, never on what a machine happens to have."""
    if generation.backend == "auto":
        return "server" if generation.server_url else "transformers"
    return generation.backend


def check(shootout: Loaded, methods: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Refuse a backend that could not answer for these methods, before anything is trained.

    Args:
        shootout: The shootout.
        methods: Label -> links of each method, as the plan has them.

    Raises:
        ConfigError: Says which key does not fit.
    """
    settings = shootout.settings
    name = backend(settings.generation)
    if name == "server":
        _check_server(shootout, methods)
    if name in ON_GPU and not settings.schedule.gpus:
        message = f"the backend {name!r} runs on a GPU, and `schedule.gpus` gives its jobs none"
        raise shootout.error(message, ("generation", "backend"))
    if name == "vllm" and find_spec("vllm") is None:
        raise shootout.error(
            "vLLM is not installed: pip install vllm, on every node; or take another backend", ("generation", "backend")
        )


def _check_server(shootout: Loaded, methods: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    settings = shootout.settings
    for index, (label, links) in enumerate(methods.items()):
        if any(link["effect"] not in KEEPS_WEIGHTS for link in links):
            message = (
                f"{label!r} changes weights, which a running server does not have; serve its checkpoint and name that "
                "as the model of a shootout of its own, or take another backend"
            )
            raise shootout.error(message, ("methods", index))
    if len(settings.models) > 1:
        message = "a server answers as one model, `server_model`, and there are several"
        raise shootout.error(message, ("models", 1))
    key = settings.generation.api_key_env
    if key and not os.environ.get(key):
        raise shootout.error(f"the environment variable {key} is not set", ("generation", "api_key_env"))


def spec(generation: Generation, *, choices: bool) -> dict[str, Any]:
    """Return the part of an answer job that `generation` decides; what changes no answer is left out of it."""
    found: dict[str, Any] = {
        "max_new_tokens": generation.max_new_tokens,
        "batch_size": generation.batch_size,
        "system_prompt": generation.system_prompt,
        "sampling": None,
        "api_key_env": generation.api_key_env,
    }
    if choices:
        return found
    if generation.temperature > 0:
        drawn = ("n", "temperature", "top_p", "seed")
        found["sampling"] = {name: getattr(generation, name) for name in drawn}
    name = backend(generation)
    if name != "transformers":
        found["backend"] = name
    if name == "server":
        found["server"] = {"url": generation.server_url, "model": generation.server_model}
    return found

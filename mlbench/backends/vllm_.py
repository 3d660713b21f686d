"""vLLM, where it is installed: one engine per base model, adapters swapped from request to request."""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlbench import models
from mlbench.backends.order import Answered, Order
from mlbench.core import Answer, Checkpoint
from mlbench.errors import JobError

RANKS = (64, 128, 256, 320, 512)
"""Adapter ranks that an engine is built for; the first one serves the untouched model too, with the same kernels."""


def answer(order: Order) -> Answered:
    """Return the answers that vLLM writes.

    Raises:
        JobError: vLLM is not installed, or it cannot apply the checkpoint's adapters.
    """
    rank = rank_for(order.checkpoint.adapters)
    try:
        from vllm import SamplingParams, TokensPrompt
        from vllm.lora.request import LoRARequest
    except ImportError as error:
        raise JobError("the backend `vllm` needs vLLM on every node: pip install vllm") from error
    adapter = next(iter(order.checkpoint.adapters), "")
    engine = _engine(replace(order.checkpoint, adapters=(), system_prompts={}), rank)
    words = models.tokenizer(order.checkpoint)
    asked = order.drawn.asked(order.prompts)
    drawn = {"temperature": order.drawn.temperature, "top_p": order.drawn.top_p, "max_tokens": order.max_new_tokens}
    outputs = engine.generate(
        [TokensPrompt(prompt_token_ids=_row(words, order.checkpoint, each)) for each in asked],
        # The engine adds the end tokens of the model's generation configuration itself.
        [SamplingParams(**drawn, seed=each.seed, stop_token_ids=[words.eos_token_id]) for each in asked],
        lora_request=LoRARequest(adapter, _number(adapter), adapter) if adapter else None,
        use_tqdm=False,
    )
    order.progress(len(asked), len(asked))
    return Answered([_answer(words, each, output) for each, output in zip(asked, outputs, strict=True)], {})


def rank_for(adapters: Sequence[str]) -> int:
    """Return the rank of the engine that a checkpoint's adapters fit in.

    Raises:
        JobError: There are several adapters, or one of a rank that no engine has.
    """
    if len(adapters) > 1:
        raise JobError(
            f"vLLM applies one adapter at a time, and this checkpoint has {len(adapters)}; "
            "the backend `transformers` merges them"
        )
    needed = 0
    for adapter in adapters:
        models.refuse_pickles(adapter)
        config = json.loads((Path(adapter) / "adapter_config.json").read_text(encoding="utf-8"))
        needed = max([config["r"], *(config.get("rank_pattern") or {}).values()])
    fitting = [rank for rank in RANKS if rank >= needed]
    if not fitting:
        raise JobError(f"vLLM takes adapters of rank {RANKS[-1]} at most, and this one has {needed}")
    return fitting[0]


_engines: dict[tuple[str, str, str, int], Any] = {}
_numbers: dict[str, int] = {}


def _engine(base: Checkpoint, rank: int) -> Any:
    """Return the engine of a base model; only the last one stays in memory."""
    from vllm import LLM

    key = (base.base, base.revision, base.dtype, rank)
    if key not in _engines:
        _engines.clear()
        gc.collect()
        models.refuse_pickles(base.base)
        _engines[key] = LLM(
            model=base.base,
            revision=base.revision or None,
            dtype=base.dtype,
            load_format="safetensors",  # never a pickle, which would run whatever code is inside it
            trust_remote_code=False,
            enable_lora=True,
            max_lora_rank=rank,
        )
    return _engines[key]


def _number(adapter: str) -> int:
    """Return the number by which an engine knows an adapter for as long as it lives."""
    return _numbers.setdefault(adapter, len(_numbers) + 1)


def _row(words: Any, checkpoint: Checkpoint, asked: models.Asked) -> list[int]:
    turns = models.turns(checkpoint, asked.prompt.text, asked.prompt.language)
    rendered = words.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    # The chat template has already written the special tokens.
    return list(words(rendered, add_special_tokens=False)["input_ids"])


def _answer(words: Any, asked: models.Asked, output: Any) -> Answer:
    found = output.outputs[0]
    return Answer(
        prompt=asked.prompt,
        sample=asked.sample,
        text=words.decode(found.token_ids, skip_special_tokens=True).strip(),
        tokens=len(found.token_ids) - (found.finish_reason == "stop"),
        truncated=found.finish_reason == "length",
    )

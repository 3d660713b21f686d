"""Backends on this machine: what they write is what plain batches write, or they say what they lack."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import torch
from transformers import ContinuousBatchingConfig

from mlbench import models
from mlbench.backends import continuous, vllm_
from mlbench.backends.order import Order
from mlbench.core import Checkpoint, Prompt
from mlbench.errors import JobError

torch.set_num_threads(1)

# Limits that a GPU's memory sets otherwise.
SMALL = ContinuousBatchingConfig(seed=0, page_size=16, num_blocks=32, max_batch_tokens=64, max_requests_per_batch=3)


def order(checkpoint: Checkpoint, **changes: Any) -> Order:
    asked = [Prompt(id=f"{at}", cluster="c", language="en", text="x" * (5 * at + 1)) for at in range(5)]
    settings = {"prompts": asked, "max_new_tokens": 8, "batch_size": 4, "drawn": models.GREEDY}
    return Order(checkpoint=checkpoint, progress=lambda *at: None, **settings | changes)


def test_continuous_batching_writes_what_plain_batches_write(tiny_model: Path) -> None:
    checkpoint = Checkpoint(base=str(tiny_model), system_prompts={"*": "be kind"})
    loaded = models.load(checkpoint, device="cpu")
    asked = order(checkpoint)
    assert continuous.write(loaded, asked, SMALL).answers == models.generate(loaded, asked.prompts, max_new_tokens=8)


def test_continuous_batching_draws_samples(tiny_model: Path) -> None:
    checkpoint = Checkpoint(base=str(tiny_model))
    loaded = models.load(checkpoint, device="cpu")
    asked = order(checkpoint, drawn=models.Sampling(n=2, temperature=1.0))
    said = continuous.write(loaded, asked, SMALL).answers
    assert [(answer.prompt.id, answer.sample) for answer in said[:4]] == [("0", 0), ("0", 1), ("1", 0), ("1", 1)]
    assert len({answer.text for answer in said}) == 10


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_continuous_batching_without_a_gpu_is_refused() -> None:
    with pytest.raises(JobError, match="needs a GPU and this job has none"):
        continuous.answer(order(Checkpoint(base="nowhere")))


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_vllm_that_is_not_installed_is_named() -> None:
    with pytest.raises(JobError, match="pip install vllm"):
        vllm_.answer(order(Checkpoint(base="nowhere")))


def adapter(folder: Path, rank: int, **more: Any) -> str:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank, **more}), encoding="utf-8")
    return str(folder)


def test_vllm_gets_an_engine_that_an_adapter_fits_in(tmp_path: Path) -> None:
    assert vllm_.rank_for([]) == 64
    assert vllm_.rank_for([adapter(tmp_path / "a", 16)]) == 64
    assert vllm_.rank_for([adapter(tmp_path / "b", 16, rank_pattern={"q_proj": 65})]) == 128
    with pytest.raises(JobError, match="rank 512 at most, and this one has 600"):
        vllm_.rank_for([adapter(tmp_path / "c", 600)])
    with pytest.raises(JobError, match="one adapter at a time, and this checkpoint has 2"):
        vllm_.rank_for(["a", "b"])


@pytest.fixture
def transformers_serve(tiny_model: Path, tmp_path: Path) -> Iterator[str]:
    """Return the URL of `transformers serve` with the tiny model, ended after the test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-c", "from transformers.cli.transformers import main; main()", "serve", str(tiny_model)]
    log = (tmp_path / "serve.log").open("w")
    process = subprocess.Popen(
        [sys.executable, *command, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        for _ in range(120):
            assert process.poll() is None, (tmp_path / "serve.log").read_text()
            try:
                urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.25)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("openai") is None, reason="`transformers serve` needs openai")
def test_transformers_serve_answers_as_the_model_does_here(tiny_model: Path, transformers_serve: str) -> None:
    checkpoint = Checkpoint(base=str(tiny_model), system_prompts={"en": "be kind"})
    server = {"url": transformers_serve, "model": str(tiny_model)}
    asked = order(checkpoint, server=server)
    from mlbench.backends import server as backend

    said = backend.answer(asked).answers
    here = models.generate(models.load(checkpoint, device="cpu"), asked.prompts, max_new_tokens=8)
    assert [(a.text, a.tokens, a.truncated) for a in said] == [(a.text, a.tokens, a.truncated) for a in here]

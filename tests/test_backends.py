"""Backends: who may answer, what a server is asked and survives, and that continuous batching changes nothing."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import torch
from transformers import ContinuousBatchingConfig

from mlbench import backends, models, planner, shootout, verbs
from mlbench.backends import chat, continuous, vllm_
from mlbench.backends.order import Order
from mlbench.core import Checkpoint, Prompt
from mlbench.errors import ConfigError, JobError
from mlbench.store import Store

from .conftest import Bench

torch.set_num_threads(1)

Behave = Callable[[dict[str, Any], int], tuple[int, dict[str, str], Any]]
"""(request body, how many requests of this text came before) -> (status, headers, reply)."""


def completion(text: str | None, *, finish: str = "stop", tokens: int = 2) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return {"model": "served-2026", "choices": [choice], "usage": {"completion_tokens": tokens, "prompt_tokens": 9}}


def echo(body: dict[str, Any], seen: int) -> tuple[int, dict[str, str], Any]:
    return 200, {}, completion(f"said {body['messages'][-1]['content']}")


@dataclass(kw_only=True)
class Stand:
    """A real server on this machine that keeps what it was asked."""

    behave: Behave
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    most: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Stand:
        stand = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                with stand._lock:
                    stand._now += 1
                    stand.most = max(stand.most, stand._now)
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with stand._lock:
                    seen = sum(each["messages"] == body["messages"] for each in stand.bodies)
                    stand.bodies.append(body)
                    stand.keys.append(self.headers.get("Authorization"))
                status, headers, reply = stand.behave(body, seen)
                data = json.dumps(reply).encode()
                # Before the reply leaves: whoever reads it may ask again at once.
                with stand._lock:
                    stand._now -= 1
                try:
                    self.send_response(status)
                    for name, value in {**headers, "Content-Length": str(len(data))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client has given up, which one test wants it to

            def log_message(self, *words: Any) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"


def prompts(count: int = 3) -> list[Prompt]:
    return [Prompt(id=f"p{at}", cluster=f"p{at}", language="en", text=f"ask {at}") for at in range(count)]


def spec(stand: Stand, **changes: Any) -> dict[str, Any]:
    return {
        "max_new_tokens": 5,
        "batch_size": 4,
        "system_prompt": "",
        "sampling": None,
        "api_key_env": "",
        "backend": "server",
        "server": {"url": stand.url, "model": "mine"},
    } | changes


def silent(done: int, total: int) -> None:
    """Watch nothing."""


def ask(stand: Stand, texts: list[str], **changes: Any) -> list[chat.Reply]:
    """Ask with pauses that a test can wait for."""
    server = replace(chat.Server(url=stand.url, model="mine", base_wait=0.01), **changes)
    return chat.ask(server, [{"messages": [{"role": "user", "content": text}]} for text in texts], silent)


def test_a_server_is_asked_each_prompt_and_answers_come_back_in_order() -> None:
    def slow_first(body: dict[str, Any], seen: int) -> tuple[int, dict[str, str], Any]:
        time.sleep(0.2 if body["messages"][-1]["content"] == "ask 0" else 0)
        return echo(body, seen)

    progress: list[tuple[int, int]] = []
    with Stand(behave=slow_first) as stand:
        start = Checkpoint(base="nowhere", system_prompts={"en": "be kind"})
        said = backends.answer(spec(stand, system_prompt="be brief"), start, prompts(), lambda *at: progress.append(at))
    assert [answer.text for answer in said.answers] == ["said ask 0", "said ask 1", "said ask 2"]
    assert {(answer.tokens, answer.truncated, answer.sample) for answer in said.answers} == {(2, False, 0)}
    assert said.facts == {"backend": "server", "served_model": "served-2026"}
    assert progress == [(1, 3), (2, 3), (3, 3)]
    assert sorted(stand.bodies, key=str)[0] == {
        "model": "mine",
        "messages": [{"role": "system", "content": "be brief\n\nbe kind"}, {"role": "user", "content": "ask 0"}],
        "max_tokens": 5,
        "temperature": 0.0,
    }


def test_samples_are_asked_one_by_one_with_seeds_of_their_own() -> None:
    with Stand(behave=echo) as stand:
        drawn = {"n": 2, "temperature": 0.7, "top_p": 0.9, "seed": 3}
        said = backends.answer(spec(stand, sampling=drawn), Checkpoint(base=""), prompts(2), silent)
        backends.answer(spec(stand, sampling=drawn), Checkpoint(base=""), prompts(2), silent)
    assert [(answer.prompt.id, answer.sample) for answer in said.answers] == [
        ("p0", 0),
        ("p0", 1),
        ("p1", 0),
        ("p1", 1),
    ]
    seeds = [body["seed"] for body in stand.bodies]
    assert len(set(seeds)) == 4 and sorted(seeds[:4]) == sorted(seeds[4:]) and max(seeds) < 2**31
    assert {(body["temperature"], body["top_p"]) for body in stand.bodies} == {(0.7, 0.9)}


def test_what_a_server_cut_off_or_filtered_away_is_told_from_an_answer() -> None:
    def odd(body: dict[str, Any], seen: int) -> tuple[int, dict[str, str], Any]:
        text = body["messages"][-1]["content"]
        return 200, {}, completion("half", finish="length", tokens=5) if text == "ask 0" else completion(None)

    with Stand(behave=odd) as stand:
        said = backends.answer(spec(stand), Checkpoint(base=""), prompts(2), silent)
    assert [(answer.text, answer.truncated) for answer in said.answers] == [("half", True), ("", False)]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again_until_it_answers(status: int) -> None:
    def busy(body: dict[str, Any], seen: int) -> tuple[int, dict[str, str], Any]:
        return echo(body, seen) if seen == 2 else (status, {}, {"error": "later"})

    with Stand(behave=busy) as stand:
        assert [reply.text for reply in ask(stand, ["a", "b"])] == ["said a", "said b"]
    assert len(stand.bodies) == 6


def test_a_server_that_says_how_long_to_wait_is_left_alone_for_so_long() -> None:
    def wishes(body: dict[str, Any], seen: int) -> tuple[int, dict[str, str], Any]:
        return echo(body, seen) if seen else (429, {"Retry-After": "0.3"}, {})

    started = time.monotonic()
    with Stand(behave=wishes) as stand:
        ask(stand, ["a"])
    assert time.monotonic() - started > 0.3
    with (
        Stand(behave=lambda body, seen: (429, {"Retry-After": "86400"}, {})) as stand,
        pytest.raises(JobError, match="wants to be left alone for 86400 seconds: HTTP 429"),
    ):
        ask(stand, ["a"])
    assert len(stand.bodies) == 1


def test_a_server_that_takes_too_long_is_asked_again() -> None:
    def sleepy(body: dict[str, Any], seen: int) -> tuple[int, dict[str, str], Any]:
        time.sleep(0 if seen else 1.0)
        return echo(body, seen)

    with Stand(behave=sleepy) as stand:
        assert ask(stand, ["a"], timeout=0.3)[0].text == "said a"
        with pytest.raises(JobError, match="gave no answer in 1 attempts: it took too long"):
            ask(stand, ["b"], timeout=0.3, retries=0)


def test_a_server_that_talks_nonsense_or_is_not_there_is_an_error_that_says_so() -> None:
    with (
        Stand(behave=lambda body, seen: (200, {}, {"choices": []})) as stand,
        pytest.raises(JobError, match=r"in 3 attempts: its reply is no chat completion \(IndexError\)"),
    ):
        ask(stand, ["a"], retries=2)
    with pytest.raises(JobError, match="in 2 attempts: it cannot be reached"):
        ask(stand, ["a"], retries=1)


def test_a_request_that_is_refused_is_not_sent_again_and_ends_all_others() -> None:
    with (
        Stand(behave=lambda body, seen: (400, {}, {"echo": body})) as stand,
        pytest.raises(JobError, match=r"refuses the request: HTTP 400$"),
    ):
        ask(stand, ["a secret"] * 50, concurrency=2)
    assert len(stand.bodies) <= 4


def test_a_notebook_with_a_running_loop_can_ask_too() -> None:
    async def cell(stand: Stand) -> list[chat.Reply]:
        return ask(stand, ["a"])

    with Stand(behave=echo) as stand:
        assert asyncio.run(cell(stand))[0].text == "said a"


def test_never_more_requests_are_in_flight_than_allowed() -> None:
    def slow(body: dict[str, Any], seen: int) -> tuple[int, dict[str, str], Any]:
        time.sleep(0.03)
        return echo(body, seen)

    with Stand(behave=slow) as stand:
        ask(stand, [f"{at}" for at in range(12)], concurrency=3)
    assert stand.most == 3


def test_the_key_comes_from_the_environment_and_shows_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "hush")
    with Stand(behave=echo) as stand:
        ask(stand, ["a"], api_key_env="MY_KEY")
    assert stand.keys == ["Bearer hush"]
    with (
        Stand(behave=lambda body, seen: (401, {}, {"you sent": "hush"})) as stand,
        pytest.raises(JobError) as refused,
    ):
        ask(stand, ["a"], api_key_env="MY_KEY")
    assert "hush" not in str(refused.value) and "api_key_env" in str(refused.value)
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(JobError, match="environment variable MY_KEY"):
        ask(stand, ["a"], api_key_env="MY_KEY")


def test_a_shootout_is_answered_by_a_server(bench: Bench) -> None:
    with Stand(behave=echo) as stand:
        server = {"server_url": stand.url, "server_model": "mine", "temperature": 0.5, "n": 2}
        settings = {"generation": {"max_new_tokens": 4, "batch_size": 3, **server}, "tracking": {"enabled": False}}
        path = bench.write(methods=["none"], **settings)
        outcome = verbs.run(path, inline=True)
    assert outcome.exit_code == 0
    assert len(stand.bodies) == 3 * 4 * 2  # languages, prompts, samples
    store = Store(bench.folder / "run")
    made = verbs.make_plan(path)
    for cell in made.cells:
        answers = store.answers(cell.answer_key, made.jobs[cell.answer_key].spec["prompts"])
        assert [answer.sample for answer in answers] == [0, 1] * 4
        assert store.status(cell.answer_key).facts["backend"] == "server"
    assert outcome.results is not None
    assert (outcome.results.cells["n"] == 8).all() and outcome.results.cells["complete"].all()


def test_a_shootout_with_samples_keeps_every_one_of_them(bench: Bench) -> None:
    generation = {"max_new_tokens": 4, "batch_size": 8, "n": 3, "temperature": 1.0, "seed": 1}
    path = bench.write(methods=["none"], generation=generation, tracking={"enabled": False})
    outcome = verbs.run(path, inline=True)
    assert outcome.results is not None
    assert (outcome.results.cells["n"] == 12).all() and (outcome.results.cells["clusters"] == 4).all()


def plan(bench: Bench, **changes: Any) -> Any:
    return planner.make(shootout.load(bench.write(**changes)))


@pytest.mark.parametrize(
    ("generation", "more", "words"),
    [
        ({"n": 2}, {}, "generation.n: `n` needs a `temperature` above 0"),
        ({"top_p": 0.9}, {}, "generation.top_p: `top_p` needs a `temperature` above 0"),
        ({"temperature": -1}, {}, "generation.temperature"),
        ({"backend": "server"}, {}, "the backend `server` needs `server_url`"),
        ({"server_url": "http://x/v1"}, {}, "needs `server_model`"),
        ({"backend": "transformers", "server_url": "http://x/v1"}, {}, "`server_url` is for the backend `server`"),
        ({"api_key_env": "KEY"}, {}, "`api_key_env` is for the backend `server`"),
        ({"server_url": "http://me:pass@x/v1"}, {}, "generation.server_url"),
        ({"server_url": "http://x/v1", "server_model": "m"}, {}, "'sft' changes weights, which a running server"),
        (
            {"server_url": "http://x/v1", "server_model": "m", "api_key_env": "NO_SUCH_KEY"},
            {"methods": ["none"]},
            "environment variable NO_SUCH_KEY is not set",
        ),
        ({"backend": "continuous"}, {}, "runs on a GPU, and `schedule.gpus` gives its jobs none"),
        ({"backend": "vllm"}, {"schedule": {"gpus": 1}}, "vLLM is not installed"),
    ],
)
def test_generation_that_cannot_work_is_refused_before_anything_runs(
    bench: Bench, generation: dict[str, Any], more: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        plan(bench, generation=generation, **more)
    assert words in str(refused.value)
    assert f"{bench.folder / 'tiny.yaml'}:" in str(refused.value)


def test_several_models_cannot_be_one_server(bench: Bench, tmp_path: Path) -> None:
    twice = [str(bench.folder / "model"), {"source": str(bench.folder / "model"), "name": "again"}]
    server = {"server_url": "http://127.0.0.1:1/v1", "server_model": "m"}
    with pytest.raises(ConfigError, match="a server answers as one model"):
        plan(bench, models=twice, methods=["none"], generation=server)


def keys(bench: Bench, **generation: Any) -> set[str]:
    made = plan(bench, methods=["none"], generation={"max_new_tokens": 4, **generation})
    return {cell.answer_key for cell in made.cells}


def test_answers_are_shared_exactly_where_they_would_be_the_same(bench: Bench) -> None:
    greedy = keys(bench)
    for same in ({"backend": "transformers"}, {"seed": 5}, {"batch_size": 3}):
        assert keys(bench, **same) == greedy
    server = {"server_url": "http://127.0.0.1:1/v1", "server_model": "m"}
    others = [
        {"system_prompt": "be brief"},
        {"temperature": 1},
        {"temperature": 1, "seed": 5},
        {"temperature": 1, "n": 2},
        {"temperature": 1, "top_p": 0.5},
        server,
        {**server, "server_model": "other"},
    ]
    found = [keys(bench, **other) for other in others]
    assert len(set().union(greedy, *found)) == len(greedy) * (1 + len(others))


def order(checkpoint: Checkpoint, **changes: Any) -> Order:
    asked = [Prompt(id=f"{at}", cluster="c", language="en", text="x" * (5 * at + 1)) for at in range(5)]
    settings = {"prompts": asked, "max_new_tokens": 8, "batch_size": 4, "drawn": models.GREEDY, "progress": silent}
    return Order(checkpoint=checkpoint, **settings | changes)


SMALL = ContinuousBatchingConfig(seed=0, page_size=16, num_blocks=32, max_batch_tokens=64, max_requests_per_batch=3)
"""Limits that a GPU's memory sets otherwise."""


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

"""The backend `server`: what a server is asked, what it survives, and what ends a run."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from mlbench import backends
from mlbench.backends import chat
from mlbench.core import Checkpoint, Prompt
from mlbench.errors import JobError

from .stand import Stand, completion, echo


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

"""Many questions to one OpenAI-compatible server at once: bounded in number, asked again while it is busy or silent."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from mlbench.errors import JobError
from mlbench.patience import AGAIN, LONGEST_WAIT, wished

if TYPE_CHECKING:
    import httpx2

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where to ask, and how.

    Attributes:
        url: Where `/chat/completions` is.
        model: Name the server knows.
        api_key_env: Environment variable with the key; "" sends none.
        concurrency: Requests in flight.
        timeout: Seconds per attempt.
        retries: Further attempts after a busy, broken or silent server.
        base_wait: Seconds before the first of them; each later pause is twice as long.
    """

    url: str
    model: str
    api_key_env: str = ""
    concurrency: int = 16
    timeout: float = 600.0
    retries: int = 6
    base_wait: float = 0.5


class Reply(NamedTuple):
    """What the server said.

    Attributes:
        tokens: Those of the answer, as the server counts them; 0 where it does not.
        truncated: Whether the token limit cut the answer off.
        model: What the server calls the model that has answered.
    """

    text: str
    tokens: int
    truncated: bool
    model: str


def ask(server: Server, bodies: Sequence[Mapping[str, Any]], progress: Progress) -> list[Reply]:
    """Return one reply per request body, in order; the first question that fails for good ends all others.

    Raises:
        JobError: The key is not set, the server refuses, or it stays busy or silent.
    """
    asking = _ask(server, bodies, progress)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(asking)
    # A notebook has a loop of its own in this thread.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, asking).result()


async def _ask(server: Server, bodies: Sequence[Mapping[str, Any]], progress: Progress) -> list[Reply]:
    import httpx2

    replies: dict[int, Reply] = {}
    waiting = iter(enumerate(bodies))
    url = f"{server.url.rstrip('/')}/chat/completions"

    async def worker(client: httpx2.AsyncClient) -> None:
        for index, body in waiting:
            replies[index] = await _persist(client, url, {"model": server.model, **body}, server)
            progress(len(replies), len(bodies))

    limits = httpx2.Limits(max_connections=server.concurrency)
    async with httpx2.AsyncClient(headers=_headers(server), timeout=server.timeout, limits=limits) as client:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(server.concurrency, len(bodies))):
                    group.create_task(worker(client))
        except* JobError as errors:
            raise errors.exceptions[0] from None
    return [replies[index] for index in range(len(bodies))]


def _headers(server: Server) -> dict[str, str]:
    key = os.environ.get(server.api_key_env, "") if server.api_key_env else ""
    if server.api_key_env and not key:
        raise JobError(f"the environment variable {server.api_key_env} with the server's key is not set")
    return {"Authorization": f"Bearer {key}"} if key else {}


async def _persist(client: httpx2.AsyncClient, url: str, body: Mapping[str, Any], server: Server) -> Reply:
    wrong = ""
    for attempt in range(server.retries + 1):
        reply, wrong, wish = await _attempt(client, url, body)
        if reply is not None:
            return reply
        if wish is not None and wish > LONGEST_WAIT:
            raise JobError(f"the server {server.url} wants to be left alone for {wish:.0f} seconds: {wrong}")
        if attempt < server.retries:
            # base · 2^attempt · U(0.5, 1.5): requests that failed together do not come back together
            pause = min(LONGEST_WAIT, server.base_wait * 2**attempt) * random.uniform(0.5, 1.5)
            await asyncio.sleep(max(pause, wish or 0.0))
    raise JobError(f"the server {server.url} gave no answer in {server.retries + 1} attempts: {wrong}")


async def _attempt(
    client: httpx2.AsyncClient, url: str, body: Mapping[str, Any]
) -> tuple[Reply | None, str, float | None]:
    """Return the reply, or what went wrong and how long the server wants to be left alone."""
    import httpx2

    try:
        response = await client.post(url, json=dict(body))
    except httpx2.TimeoutException:
        return None, "it took too long", None
    except httpx2.TransportError as error:
        return None, f"it cannot be reached ({type(error).__name__})", None
    if response.status_code in AGAIN:
        return None, f"HTTP {response.status_code}", wished(response.headers)
    if response.status_code != 200:
        # Not the body: a server may quote the request's headers in it.
        hint = "; see `api_key_env`" if response.status_code in (401, 403) else ""
        raise JobError(f"the server {url} refuses the request: HTTP {response.status_code}{hint}")
    try:
        return _reply(response.json()), "", None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        return None, f"its reply is no chat completion ({type(error).__name__})", None


def _reply(body: Any) -> Reply:
    choice = body["choices"][0]
    text = choice["message"].get("content") or ""  # what was filtered away has no words
    if not isinstance(text, str):
        raise TypeError("content is no text")
    tokens = int((body.get("usage") or {}).get("completion_tokens") or 0)
    return Reply(text, tokens, choice.get("finish_reason") == "length", str(body.get("model") or ""))

"""An OpenAI-compatible chat endpoint: retries that honour its wishes, replies remembered on disk, usage counted."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlbench.errors import JobError
from mlbench.patience import AGAIN, LONGEST_WAIT, wished

if TYPE_CHECKING:
    import httpx2


class EndpointError(JobError):
    """The judge's endpoint did not answer, or refused the request; the answers are kept and can be judged later."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the endpoint said: the text, the model that it says has spoken, and the tokens it counted."""

    text: str
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(kw_only=True)
class Usage:
    """What asking has used: requests that were answered, replies found on disk, and tokens paid for."""

    requests: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    models: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, reply: Reply, *, cached: bool) -> None:
        """Add one reply."""
        with self._lock:
            self.models |= {reply.model} - {""}
            self.cached += cached
            if not cached:
                self.requests += 1
                self.prompt_tokens += reply.prompt_tokens
                self.completion_tokens += reply.completion_tokens


class Memory:
    """Replies by content key in one SQLite file, which several processes may use at once."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file
        with self._open() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._file, timeout=60)) as connection, connection:
            yield connection

    def get(self, key: str) -> Reply | None:
        """Return the reply of that key, if there is one."""
        with self._open() as connection:
            row = connection.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        return Reply(**json.loads(row[0])) if row else None

    def put(self, key: str, reply: Reply) -> None:
        """Keep a reply."""
        with self._open() as connection:
            connection.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, json.dumps(asdict(reply))))


def ask(client: httpx2.Client, body: Mapping[str, Any], *, retries: int, base_wait: float = 0.5) -> Reply:
    """Return the endpoint's reply; busy, broken and silent endpoints are asked again after a growing, jittered pause.

    Raises:
        EndpointError: It stayed so, or it refuses the request.
    """
    wrong = ""
    for attempt in range(retries + 1):
        answered, wrong, wish = _attempt(client, body)
        if answered is not None:
            return answered
        if wish is not None and wish > LONGEST_WAIT:
            wrong = f"{wrong}, and it wants to be left alone for {wish:.0f} seconds"
            break
        if attempt == retries:
            break
        # base · 2^attempt · U(0.5, 1.5): requests that failed together do not come back together
        pause = min(LONGEST_WAIT, base_wait * 2**attempt) * random.uniform(0.5, 1.5)
        time.sleep(max(pause, wish or 0.0))
    times = f"{attempt + 1} attempt{'s' if attempt else ''}"
    raise EndpointError(
        f"the judge's endpoint {client.base_url} gave no verdict in {times}: {wrong}; the answers are kept, "
        "and running again asks only for the verdicts that are missing"
    )


def _attempt(client: httpx2.Client, body: Mapping[str, Any]) -> tuple[Reply | None, str, float | None]:
    """Return the reply, or what went wrong and how long the endpoint wants to be left alone."""
    import httpx2

    try:
        response = client.post("chat/completions", json=dict(body))
    except httpx2.TimeoutException:
        return None, "it took too long", None
    except httpx2.TransportError as error:
        return None, f"it cannot be reached ({type(error).__name__})", None
    if response.status_code in AGAIN:
        return None, f"HTTP {response.status_code}", wished(response.headers)
    if response.status_code in (401, 403):
        raise EndpointError(f"{client.base_url} refuses the key: HTTP {response.status_code}; see `api_key_env`")
    if response.status_code != 200:
        # Not the body: an endpoint may quote the request's headers in it.
        raise EndpointError(f"{client.base_url} refuses the request: HTTP {response.status_code}")
    try:
        return _reply(response.json()), "", None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        return None, f"its reply is no chat completion ({type(error).__name__})", None


def _reply(body: Any) -> Reply:
    choice, usage = body["choices"][0], body.get("usage") or {}
    message = choice["message"]
    # A judge that refuses, or whose words were filtered away, has said nothing.
    text = message["content"] if message.get("content") is not None else message.get("refusal") or ""
    if not isinstance(text, str):
        raise TypeError("content is no text")
    return Reply(
        text=text,
        model=str(body.get("model") or ""),
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
    )

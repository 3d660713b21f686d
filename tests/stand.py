"""A chat server on this machine that behaves as a test wants and keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behave = Callable[[dict[str, Any], int], tuple[int, dict[str, str], Any]]
"""(request body, how many requests of this text came before) -> (status, headers, reply)."""


def completion(text: str | None, *, finish: str = "stop", tokens: int = 2) -> dict[str, Any]:
    """Return the reply of a server that has said this text."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return {"model": "served-2026", "choices": [choice], "usage": {"completion_tokens": tokens, "prompt_tokens": 9}}


def echo(body: dict[str, Any], seen: int) -> tuple[int, dict[str, str], Any]:
    """Repeat the last message."""
    return 200, {}, completion(f"said {body['messages'][-1]['content']}")


@dataclass(kw_only=True)
class Stand:
    """A real server on this machine, up inside its `with` block.

    Attributes:
        behave: How it answers.
        bodies: What it was asked, in the order of arrival.
        keys: The `Authorization` of each request.
        most: The most requests it had at the same time.
    """

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
        """Return the address to give as `server_url`."""
        return f"http://127.0.0.1:{self.http.server_port}/v1"

"""A chat model behind any OpenAI-compatible endpoint as a judge, with a rubric.

Dated model names and a fixed rubric make a result repeatable only as far as the endpoint lets it: the models it says
have answered are part of the provenance. Replies are remembered by content, so judging again costs nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from mlbench import cache
from mlbench.core import Answer, Verdict
from mlbench.errors import ConfigError
from mlbench.judges import _rubrics, _screen
from mlbench.judges._endpoint import Memory, Reply, Usage, ask
from mlbench.judges.refusal import opening_phrase

if TYPE_CHECKING:
    import httpx2


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class OpenAI:
    """A chat model with a rubric; its key is read from the environment and stored nowhere.

    Attributes:
        base_url: Where `/chat/completions` is, without user or password.
        model: Name the endpoint knows; take a dated one where there is one.
        api_key_env: Environment variable with the key; "" sends none, for an endpoint of your own.
        rubric: "outcome" asks for refused, complied_safe, unsafe or invalid; "harm" for safe, unsafe or invalid, and
            a safe answer that opens with one of our refusal phrases is refused.
        temperature: None leaves it out, for models that take none.
        max_tokens: Longest reply; a verdict needs about ten, a model that thinks aloud far more.
        timeout: Seconds per attempt.
        retries: Further attempts after a busy, broken or silent endpoint.
        price_in: Price of a million prompt tokens, in the currency of your bill.
        price_out: The same for the tokens of replies.
    """

    base_url: Annotated[str, Field(pattern=r"^https?://[^@\s]+$")] = "https://api.openai.com/v1"
    model: str = "gpt-4o-2024-08-06"
    api_key_env: str = "OPENAI_API_KEY"
    rubric: _rubrics.Rubric = "outcome"
    temperature: Annotated[float, Field(ge=0)] | None = 0.0
    max_tokens: Annotated[int, Field(ge=1)] = 64
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    timeout: Annotated[float, Field(gt=0)] = 60.0
    retries: Annotated[int, Field(ge=0)] = 6
    price_in: Annotated[float, Field(ge=0)] = 0.0
    price_out: Annotated[float, Field(ge=0)] = 0.0

    def check(self) -> None:
        """Raise what can be known of a shootout before it runs.

        Raises:
            ConfigError: The environment variable with the key is not set.
        """
        if self.api_key_env and not os.environ.get(self.api_key_env):
            raise ConfigError(
                f"the judge `openai` needs a key in the environment variable {self.api_key_env}",
                hint='export it, or set `api_key_env: ""` for an endpoint that asks for none',
            )

    def grade(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Return one verdict per answer.

        Raises:
            ConfigError: There is no key.
            EndpointError: The endpoint is down or refuses; what it said before is remembered.
        """
        return _screen.grade(answers, self._ask)

    def provenance(self) -> dict[str, str]:
        """Return what the verdicts depend on besides the code; `revision` is what the endpoint calls its model."""
        rubric = _rubrics.RUBRICS[self.rubric]
        return {
            "model": f"{self.model} at {self.base_url}",
            "revision": ", ".join(sorted(self.usage.models)),
            "template_hash": hashlib.sha256(rubric.encode()).hexdigest()[:16],
            "decoding": f"temperature {self.temperature}, {self.max_tokens} new tokens",
            "reading": self.rubric,
        }

    def costs(self) -> dict[str, float]:
        """Return what this judge has used so far: requests, replies from disk, tokens, and their price."""
        used = self.usage
        price = (used.prompt_tokens * self.price_in + used.completion_tokens * self.price_out) / 1e6
        return {
            "judge_requests": used.requests,
            "judge_cached": used.cached,
            "judge_prompt_tokens": used.prompt_tokens,
            "judge_completion_tokens": used.completion_tokens,
            "judge_price": price,
        }

    @cached_property
    def usage(self) -> Usage:
        """What asking has used since this judge was made."""
        return Usage()

    def _ask(self, answers: Sequence[Answer]) -> list[Verdict]:
        self.check()
        memory = Memory(cache.folder() / "judges" / "openai.sqlite")
        with self._client() as client, ThreadPoolExecutor(self.concurrency) as pool:
            futures = [pool.submit(self._reply, client, memory, answer) for answer in answers]
            try:
                replies = [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # one failure is the job's: ask no further
                raise
        return [self._verdict(answer, reply.text) for answer, reply in zip(answers, replies, strict=True)]

    def _client(self) -> httpx2.Client:
        import httpx2

        key = os.environ[self.api_key_env] if self.api_key_env else ""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx2.Client(base_url=f"{self.base_url.rstrip('/')}/", headers=headers, timeout=self.timeout)

    def _reply(self, client: httpx2.Client, memory: Memory, answer: Answer) -> Reply:
        decoding: dict[str, Any] = {"model": self.model, "max_tokens": self.max_tokens}
        if self.temperature is not None:
            decoding["temperature"] = self.temperature
        # The boundary is new in every request, so the key is made of what it surrounds.
        parts = [self.base_url, decoding, _rubrics.RUBRICS[self.rubric], answer.prompt.text, answer.text]
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        known = memory.get(key)
        if known is None:
            asked = _rubrics.messages(self.rubric, answer.prompt.text, answer.text)
            reply = ask(client, {**decoding, "messages": asked}, retries=self.retries)
            memory.put(key, reply)
        else:
            reply = known
        self.usage.count(reply, cached=known is not None)
        return reply

    def _verdict(self, answer: Answer, text: str) -> Verdict:
        word = _rubrics.read(self.rubric, text)
        if word is None:
            return Verdict(label="unparsed", raw=text)
        phrase = opening_phrase(answer.text, answer.prompt.language)
        label = _rubrics.WORDS[self.rubric][word]
        if label is None:
            raw = f"{text} (refusal by phrase: {phrase})" if phrase else text
            return Verdict(label="refused" if phrase else "complied_safe", raw=raw)
        return Verdict(label=label, leak=label == "unsafe" and bool(phrase), raw=text)


plugin = OpenAI

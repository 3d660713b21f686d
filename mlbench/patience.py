"""How long to wait before a busy endpoint is asked again: by its own wish, where it states one."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Status codes after which asking again may help."""
LONGEST_WAIT = 120.0
"""Seconds; an endpoint that wants a longer pause (a used-up day's budget) is treated as down."""
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def wished(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that an endpoint asks to wait: Retry-After first, else its rate-limit headers."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value and re.fullmatch(r"\d+(\.\d+)?", value):
            return float(value) * unit
    if "retry-after" in headers:
        return _until(headers["retry-after"])
    resets = [
        _duration(headers[name])
        for name, left in (
            ("x-ratelimit-reset-requests", "x-ratelimit-remaining-requests"),
            ("x-ratelimit-reset-tokens", "x-ratelimit-remaining-tokens"),
        )
        if name in headers and headers.get(left, "0") == "0"
    ]
    return max(resets, default=None)


def _until(date: str) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - time.time())
    except ValueError:
        return None


def _duration(text: str) -> float:
    """Return the seconds of "1s", "6m0s" or "20ms"; 0 for anything else."""
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text))

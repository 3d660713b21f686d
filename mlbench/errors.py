"""The exception tree.

MlbenchError
├── UserError           the user can mend it: one screen, no traceback, exit code 2
│   ├── ConfigError     a shootout file is wrong (carries file, line and key)
│   ├── PluginError     a plugin is unknown, unavailable or breaks its contract
│   ├── NeedsError      the corpus lacks what a method declares to need
│   └── DataError       a data file or model folder is missing or malformed
│       └── AbsentError it is none of the user's files, and not on this machine; a plan can do without
└── JobError            one job of the grid failed; the grid goes on
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Where:
    """A place in a user's file: shown as `file:line: key`."""

    file: str = ""
    line: int | None = None
    key: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.key) if part)


class MlbenchError(Exception):
    """Root of everything mlbench raises on purpose."""


class UserError(MlbenchError):
    """Something the user can mend.

    Args:
        message: What was given and what is wrong with it, one sentence.
        where: The place in the user's file, when there is one.
        allowed: What would have been accepted.
        hint: What to do next, e.g. the nearest valid name.
    """

    def __init__(
        self, message: str, *, where: Where | None = None, allowed: Iterable[str] = (), hint: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where or Where()
        self.allowed = tuple(allowed)
        self.hint = hint

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.message}" if str(self.where) else self.message]
        if self.hint:
            lines.append(f"  {self.hint}")
        if self.allowed:
            lines.append(f"  allowed: {shorten(self.allowed)}")
        return "\n".join(lines)


class ConfigError(UserError):
    """A shootout file is wrong."""


class PluginError(UserError):
    """A plugin is unknown, cannot be imported, or breaks its contract."""


class NeedsError(UserError):
    """The corpus lacks what a method declares to need."""


class DataError(UserError):
    """A data file or a model folder is missing or malformed."""


class AbsentError(DataError):
    """A released model or data set is not on this machine, or its version is not stated."""


class JobError(MlbenchError):
    """One job of the grid failed; recorded as a row, never fatal for the grid."""


def nearest(name: str, options: Iterable[str]) -> str:
    """Return "did you mean X?" for the closest option, or "" when nothing is close."""
    match = difflib.get_close_matches(name.lower(), {option.lower(): option for option in options}, n=1, cutoff=0.5)
    by_lower = {option.lower(): option for option in options}
    return f"did you mean {by_lower[match[0]]!r}?" if match else ""


def unknown(kind: str, name: str, options: Iterable[str], *, where: Where | None = None) -> UserError:
    """Return the error for a name that is not among `options`, naming the nearest."""
    options = tuple(options)
    error = PluginError if kind in ("method", "task", "judge") else ConfigError
    return error(f"unknown {kind} {name!r}", where=where, allowed=options, hint=nearest(name, options))


def shorten(items: Iterable[str], limit: int = 30) -> str:
    """Return the items joined by commas, cut after `limit` of them."""
    items = tuple(items)
    more = f", ... ({len(items) - limit} more)" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more

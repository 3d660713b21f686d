"""Data sets of the Hugging Face hub, downloaded only where a task has no local file."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from mlbench.data.files import Table
from mlbench.errors import AbsentError

TOKEN = "HF_TOKEN"
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class Hub:
    """A data set on the hub.

    Attributes:
        config: Name of its configuration, "" where it has one only.
        split: "" = all splits, one after the other.
    """

    id: str
    config: str = ""
    split: str = ""


def load(hub: Hub, revision: str, example: str) -> Table:
    """Return the rows of a hub data set at one commit; the token, if any, comes from the environment.

    Raises:
        AbsentError: No commit is given, or the data set cannot be reached; says what else can be done.
    """
    local = f"or download the file yourself and give its path: with: {{data: {example}}}"
    if not COMMIT.fullmatch(revision):
        raise AbsentError(
            f"the hub data set {hub.id!r} needs `revision`, a commit of 40 hexadecimal digits (got {revision!r})",
            hint=f"branches move; a published number has to name the data it was measured on; {local}",
        )
    from datasets import load_dataset

    try:
        found = load_dataset(
            hub.id, hub.config or None, split=hub.split or None, revision=revision, token=os.environ.get(TOKEN)
        )
    except Exception as error:  # the library raises many kinds: gated, offline, no such commit, a broken file
        token = "is set" if os.environ.get(TOKEN) else "is not set"
        raise AbsentError(
            f"the hub data set {hub.id!r} at {revision[:8]} cannot be loaded: {type(error).__name__}",
            hint=f"a gated set needs its terms accepted and a token in ${TOKEN} (which {token}); {local}",
        ) from error
    parts = found.values() if isinstance(found, dict) else [found]
    rows = tuple(row for part in parts for row in part.to_list())
    columns = tuple(dict.fromkeys(name for row in rows[:1] for name in row))
    return Table(name=hub.id, columns=columns, rows=rows)

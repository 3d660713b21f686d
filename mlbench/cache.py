"""Where mlbench keeps what it can make again: organisms and fingerprints of model files."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


def folder() -> Path:
    """Return the cache folder of this user; the environment variable MLBENCH_CACHE overrides it."""
    return Path(os.environ.get("MLBENCH_CACHE") or user_cache_path("mlbench"))

"""This process and this machine: settings that have to stand before heavy libraries are imported, and versions."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib import metadata
from pathlib import Path

from mlbench import __version__

PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "ray", "mlflow", "scipy", "numpy", "pandas")

SETTINGS = {
    # Nothing phones home.
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    # Nothing floods the terminal.
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # A cluster answers only those who have its token; on this machine Ray makes the token itself. Read at import.
    "RAY_AUTH_MODE": "token",
    # A Ray task without GPU sees the GPUs it would see without Ray.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Threads that wait for each other give the core back: beside another process, spinning made training steps of
    # two threads 25 to 100 times slower, and even alone it gains nothing.
    "GOMP_SPINCOUNT": "1000",
}


def prepare() -> None:
    """Set what the user has not set; workers inherit it."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def versions() -> dict[str, str]:
    """Return the version of mlbench, of Python and of every library that numbers depend on."""
    found = {"mlbench": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def machine() -> str:
    """Return processor, cores and system in one line."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def shown(path: str | Path) -> str:
    """Return a path as a reader elsewhere can use it: relative to the current folder where it lies inside."""
    absolute = Path(path).absolute()
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute)

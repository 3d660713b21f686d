"""A package of a stranger, installed as pip installs it, is as good as our own plugins."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlbench.results import frames
from mlbench.store import Store

from .conftest import Bench

PACKAGE = Path(__file__).parent / "plugin_package"


@pytest.mark.slow
def test_a_foreign_package_is_listed_checked_and_run_on_ray(bench: Bench, tmp_path: Path) -> None:
    source = shutil.copytree(PACKAGE, tmp_path / "source")  # building leaves files behind
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    quiet = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run([*command, "--target", str(site), str(source)], check=True, capture_output=True, env=quiet)
    path = {"PYTHONPATH": str(site)}

    listed = bench.mlbench("list", "methods", **path)
    about = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in listed.stdout.splitlines()}
    assert about["nudge"] == "Tiny noise on the weights of the final norm: a method that is good for nothing but tests."
    assert "colours" in bench.mlbench("list", "tasks", **path).stdout
    assert "scale" in bench.mlbench("show", "nudge", **path).stdout

    checked = bench.mlbench("check", "nudge", "colours", **path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "FAIL" not in checked.stdout

    shootout = bench.write(
        methods=["none", {"use": "nudge", "with": {"scale": 0.5}}, {"use": ["nudge", "sft"]}],
        tasks=["requests", "colours"],
        languages=["en", "xa"],
        unseen=None,
        tracking={"enabled": False},
    )
    ended = bench.mlbench("run", shootout, **path)
    assert ended.returncode == 0, ended.stderr
    data = frames.read_plan(bench.folder / "run")
    verdicts = frames.verdicts(data, Store(bench.folder / "run"))
    assert set(verdicts["method"]) == {"none", "nudge", "nudge+sft"}
    colours = verdicts[verdicts["task"] == "colours"]
    assert len(colours) == 3 * 2 * 3
    assert colours["correct"].notna().all()

    alone = bench.mlbench("plan", shootout)
    assert alone.returncode == 2
    assert "unknown task 'colours'" in alone.stderr

"""What is installed is what is in the repository: a folder that is not listed is silently missing from a wheel."""

from __future__ import annotations

import tomllib
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def test_every_package_folder_is_listed() -> None:
    found = set()
    for name, folder in SETUPTOOLS["package-dir"].items():
        inits = (ROOT / folder).rglob("__init__.py")
        found |= {".".join([name, *init.parent.relative_to(ROOT / folder).parts]) for init in inits}
    assert set(SETUPTOOLS["packages"]) == found


def test_every_kind_of_plugin_has_its_door() -> None:
    for kind in ("methods", "tasks", "judges"):
        assert "builtin" in {entry.name for entry in entry_points(group=f"mlbench.{kind}")}


def test_data_files_are_found_where_the_code_looks() -> None:
    assert files("mlbench").joinpath("shootouts/demo.yaml").is_file()
    assert files("mlbench_reports").joinpath("report.html.j2").is_file()


def test_every_requirement_is_pinned() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    names = {line.split("==")[0].lower().replace("_", "-") for line in pins}
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["dev"]]
    missing = [item for item in wanted if item.split(">")[0].lower().replace("_", "-") not in names]
    assert missing == []

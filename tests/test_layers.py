"""The module graph: imports point one way, heavy libraries live in few places, files and functions stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGINE = ROOT / "mlbench"

# Each layer may import the layers before it, and its own members may import each other.
LAYERS = (
    "errors",
    "environment",
    "cache",
    "patience",
    "core",
    "plugins",
    "stats",
    "agreement",
    "yamlfile",
    "languages",
    "similarity",
    "data",
    "rule",
    "overlap",
    "corpus",
    "formats",
    "shootout",
    "sampling",
    "models",
    "organism",
    "sources",
    "links",
    "search",
    "plan",
    "sketch",
    "generation",
    "planner",
    "judges",
    "training",
    "tiny",
    "check",
    "backends",
    "mt",
    "doubts",
    "translate",
    "jobs",
    "store",
    "usage",
    "worker",
    "results",
    "selection",
    "probe",
    "rejudge",
    "labelling",
    "schedule",
    "view",
    "track",
    "report",
    "caveats",
    "reporting",
    "compare",
    "versus",
    "tracking",
    "verbs",
    "catalogue",
    "describe",
    "watch",
    "cli_track",
    "cli_organism",
    "cli",
)
TORCH = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "tokenizers", "safetensors")
WITH_TORCH = frozenset(
    {
        *("organism", "sampling", "models", "judges", "training", "tiny", "check", "backends", "mt", "worker", "probe"),
        *("catalogue", "describe"),
    }
)
HEAVY = {
    **dict.fromkeys(TORCH, WITH_TORCH),
    "datasets": WITH_TORCH | {"data"},
    "ray": {"schedule", "training"},
    "mlflow": {"track"},
    "lm_eval": set(),
}
LONGEST_FILE = 400
LONGEST_BODY = 60


def modules() -> list[Path]:
    return sorted(ENGINE.rglob("*.py"))


def layer_of(path: Path) -> str:
    return path.relative_to(ENGINE).with_suffix("").parts[0]


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield (imported name, whether it runs when the module is imported)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {node for outer in ast.walk(tree) if isinstance(outer, ast.FunctionDef) for node in ast.walk(outer)}
    checking = {
        node for outer in ast.walk(tree) if isinstance(outer, ast.If) and "TYPE_CHECKING" in ast.unparse(outer.test)
        for node in ast.walk(outer)
    }  # fmt: skip
    for node in ast.walk(tree):
        at_import = node not in inside and node not in checking
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            assert not path.is_relative_to(ENGINE), f"{path}: write absolute imports inside the engine"
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            yield node.module, at_import
            if node.module == "mlbench":
                yield from ((f"mlbench.{alias.name}", at_import) for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ENGINE)))
def test_imports_point_one_way(path: Path) -> None:
    if path.name == "__init__.py" and path.parent == ENGINE:
        return
    mine = LAYERS.index(layer_of(path))
    for name, _ in imports(path):
        parts = name.split(".")
        if len(parts) < 2 or parts[0] != "mlbench":
            continue
        if (ENGINE / parts[1]).exists() or (ENGINE / f"{parts[1]}.py").exists():
            assert LAYERS.index(parts[1]) <= mine, f"{path.name} imports {name}, which stands to its right"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ENGINE)))
def test_heavy_libraries_stay_where_they_belong(path: Path) -> None:
    for name, _ in imports(path):
        allowed = HEAVY.get(name.split(".")[0])
        assert allowed is None or layer_of(path) in allowed, f"{path.name} imports {name}"


@pytest.mark.parametrize("folder", ["methods", "tasks"])
def test_plugins_import_only_the_engine_and_nothing_heavy_at_the_top(folder: str) -> None:
    for path in (ROOT / folder).glob("*.py"):
        for name, at_import in imports(path):
            top = name.split(".")[0]
            assert top not in ("mlbench_methods", "mlbench_tasks", "methods", "tasks"), f"{path.name} imports {name}"
            assert not (at_import and top in HEAVY), f"{path.name} imports {name} at its top"


def test_every_engine_module_has_a_layer() -> None:
    found = {layer_of(path) for path in modules()} - {"__init__"}
    assert found == set(LAYERS)


@pytest.mark.parametrize("folder", ["mlbench", "methods", "tasks", "tests"])
def test_files_and_functions_stay_small(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= LONGEST_FILE, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
                length = (node.end_lineno or 0) - body[0].lineno + 1
                assert length <= LONGEST_BODY, f"{path}: {node.name} has {length} lines"

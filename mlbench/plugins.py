"""Plugins by name: every public module of a package named in an entry-point group is one plugin.

Listing imports nothing; loading imports one module and returns its `plugin`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from mlbench.errors import PluginError, unknown

KINDS = ("method", "task", "judge")
_files: dict[tuple[str, str], Path] = {}


@cache
def _installed(kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in entry_points(group=f"mlbench.{kind}s"):
        spec = importlib.util.find_spec(entry.value)
        folders = spec.submodule_search_locations if spec else None
        for module in pkgutil.iter_modules(folders or []):
            if module.name.startswith("_"):
                continue
            if module.name in found:
                message = f"two packages bring the {kind} {module.name!r}: {found[module.name]} and {entry.value}"
                raise PluginError(message, hint="uninstall one of them, or rename its module")
            found[module.name] = f"{entry.value}.{module.name}"
    return found


def names(kind: str) -> dict[str, str]:
    """Return plugin name -> module (or file) of one kind, without importing any of them."""
    files = {name: str(path) for (of, name), path in _files.items() if of == kind}
    return dict(sorted((_installed(kind) | files).items()))


def add_file(kind: str, path: Path) -> str:
    """Register one .py file as a plugin and return its name, the file's stem."""
    _files[kind, path.stem] = path.resolve()
    return path.stem


def load(kind: str, name: str) -> Any:
    """Return the plugin class of that name.

    Raises:
        PluginError: The name is unknown, the module fails to import, or it has no `plugin`.
    """
    known = names(kind)
    if name not in known:
        raise unknown(kind, name, known)
    try:
        module = _import_file(_files[kind, name]) if (kind, name) in _files else importlib.import_module(known[name])
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise PluginError(f"{kind} {name!r} ({known[name]}) cannot be imported: {reason}") from error
    if not hasattr(module, "plugin"):
        hint = "end the module with `plugin = YourClass`"
        raise PluginError(f"{kind} {name!r} ({known[name]}) has no `plugin`", hint=hint)
    return module.plugin


def _import_file(path: Path) -> Any:
    # A name made from the content: an edited file is a new module, never a stale one.
    name = f"mlbench_file_{path.stem}_{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


def source_hash(kind: str, name: str) -> str:
    """Return the hash of a plugin's own module and of everything it imports from its package.

    Other plugins of the package do not count: adding a method must not invalidate the results of the rest.
    """
    known = names(kind)
    if name not in known:
        raise unknown(kind, name, known)
    if (kind, name) in _files:
        sources = [_files[kind, name]]
    else:
        spec = importlib.util.find_spec(known[name])
        assert spec is not None and spec.origin is not None
        sources = sorted(_with_siblings(Path(spec.origin)))
    return hash_files(sources)


def _with_siblings(module: Path) -> set[Path]:
    found: set[Path] = set()
    todo = [module]
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                stems = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
                todo += [file for stem in stems if (file := path.parent / f"{stem}.py").exists()]
    return found


def hash_files(paths: list[Path]) -> str:
    """Return one hash over the names and contents of files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]

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
from collections.abc import Iterable, Iterator, Mapping
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
        for module in pkgutil.iter_modules(_folders(entry.value)):
            if module.name.startswith("_") or found.get(module.name) == f"{entry.value}.{module.name}":
                continue
            if module.name in found:
                message = f"two packages bring the {kind} {module.name!r}: {found[module.name]} and {entry.value}"
                raise PluginError(message, hint="uninstall one of them, or rename its module")
            found[module.name] = f"{entry.value}.{module.name}"
    return found


def _folders(package: str) -> list[str]:
    try:
        spec = importlib.util.find_spec(package)
    except Exception:  # a parent package is missing or broken; what it brings is then unknown, the rest still works
        return []
    return list(spec.submodule_search_locations or ()) if spec else []


def names(kind: str) -> dict[str, str]:
    """Return plugin name -> module (or file) of one kind, without importing any of them."""
    files = {name: str(path) for (of, name), path in _files.items() if of == kind}
    return dict(sorted((_installed(kind) | files).items()))


def add_file(kind: str, path: Path) -> str:
    """Register one .py file as a plugin and return its name, the file's stem."""
    _files[kind, path.stem] = path.resolve()
    return path.stem


def add_files(kind: str, paths: Mapping[str, str]) -> None:
    """Register the plugin files that a job was planned with."""
    for path in paths.values():
        add_file(kind, Path(path))


def forget_files() -> None:
    """Forget the files of an earlier shootout."""
    _files.clear()


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
    except (Exception, SystemExit) as error:  # a plugin may raise whatever it likes
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
    if name in sys.modules:
        return sys.modules[name]
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def files(kind: str, wanted: Iterable[str]) -> dict[str, str]:
    """Return name -> path of those plugins that came as a file; a worker has to be told where they are."""
    return {name: str(_files[kind, name]) for name in wanted if (kind, name) in _files}


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
        sources = sorted(_with_siblings(Path(spec.origin), known[name].rpartition(".")[0]))
    return hash_files(sources)


def _with_siblings(module: Path, package: str) -> set[Path]:
    found: set[Path] = set()
    todo = [module]
    root = module.parents[1] if module.name == "__init__.py" else module.parent
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        for base, names in _imports(path, root, package):
            candidates = [base, *(base / name for name in names)]
            todo += [file for place in candidates for file in (place.with_suffix(".py"), place / "__init__.py")
                     if file.is_file() and file != root / "__init__.py"]  # fmt: skip
    return found


def _imports(path: Path, root: Path, package: str) -> Iterator[tuple[Path, list[str]]]:
    """Yield the place of every module of the package that a file imports, and the names it takes from there."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            inside = f"{node.module or ''}.".removeprefix(f"{package}.")
            names = [alias.name for alias in node.names]
            if node.level:
                yield path.parents[node.level - 1].joinpath(*(node.module or "").split(".")), names
            elif inside != f"{node.module or ''}.":
                yield root.joinpath(*inside.split(".")), names
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith(f"{package}."):
                    yield root.joinpath(*alias.name.removeprefix(f"{package}.").split(".")), []


def hash_files(paths: list[Path]) -> str:
    """Return one hash over the names and contents of files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]

"""YAML 1.2 files whose errors name file, line and key.

YAML 1.2 and not 1.1, so that the language code `no` stays Norwegian and `6e-7` is a number.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from mlbench.errors import ConfigError, Where, nearest

T = TypeVar("T")
Location = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class Document:
    """A parsed YAML file, and the keys that the command line set over it."""

    path: str
    text: str
    data: Any
    flags: frozenset[str] = field(default=frozenset())

    def where(self, location: Location) -> Where:
        """Return the place of a key such as ("methods", 1, "with", "tau")."""
        location = _without_union_tag(self.data, location)
        key = dotted(location)
        if any(key == flag or key.startswith(f"{flag}.") for flag in self.flags):
            return Where(file="--set", key=key)
        return Where(file=self.path, line=_line(self.data, location), key=key)


def dotted(location: Location) -> str:
    """Return `methods[1].with.tau` for ("methods", 1, "with", "tau")."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _without_union_tag(node: Any, location: Location) -> Location:
    """Drop the last part where it names a member of a union and not something in the file."""
    for part in location[:-1]:
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            return location
    return location if not location or isinstance(node, (dict, list)) else location[:-1]


def _line(node: Any, location: Location) -> int | None:
    """Return the line of the deepest part of the location that exists, counted from 1."""
    line = None
    for part in location:
        marks = getattr(getattr(node, "lc", None), "data", None) or {}
        if part not in marks:
            break
        line = marks[part][0] + 1
        node = node[part]
    return line


def read(path: Path, overrides: Sequence[str] = ()) -> Document:
    """Return the parsed file with `key.path=value` overrides applied.

    Raises:
        ConfigError: The file is missing, not UTF-8, not YAML, or not a mapping.
    """
    if not path.is_file():
        near = [str(other) for other in sorted(path.parent.glob("*.yaml"))] if path.parent.is_dir() else []
        raise ConfigError(f"file {str(path)!r} does not exist", hint=nearest(str(path), near), allowed=near)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8: byte {error.start}", where=Where(file=str(path))) from error
    data = _parse(text, str(path))
    if not isinstance(data, dict):
        raise ConfigError("a mapping of keys is expected at the top", where=Where(file=str(path), line=1))
    flags = frozenset(_override(data, override) for override in overrides)
    return Document(path=str(path), text=text, data=data, flags=flags)


def _parse(text: str, name: str) -> Any:
    try:
        return YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = (error.problem or error.context or "not YAML").splitlines()[0]
        raise ConfigError(
            f"not YAML: {problem}", where=Where(file=name, line=mark.line + 1 if mark else None)
        ) from error
    except YAMLError as error:
        raise ConfigError(f"not YAML: {str(error).splitlines()[0]}", where=Where(file=name)) from error


def _override(data: Any, override: str) -> str:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set takes key=value, got {override!r}", hint="for example --set training.steps=100")
    node = data
    *parents, last = key.strip().split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(
                f"{parent!r} is not a mapping, so {key!r} cannot be set", where=Where(file="--set", key=key)
            )
    node[last] = _parse(value, "--set")
    return key.strip()


def validate(kind: type[T], data: Any, document: Document, at: Location = ()) -> T:
    """Return `data` as an instance of `kind`, strictly: no number is made of a string.

    Raises:
        ConfigError: Names the first key that is wrong, what is allowed there and the nearest name.
    """
    try:
        # JSON mode is strict about scalars and still turns lists into tuples.
        return TypeAdapter(kind).validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as error:
        raise _config_error(kind, error, document, at) from error


def _config_error(kind: Any, error: ValidationError, document: Document, at: Location) -> ConfigError:
    first = error.errors(include_url=False)[0]
    location: Location = first["loc"]
    where = document.where((*at, *location))
    name = str(location[-1]) if location else ""
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        allowed = _keys(kind, location[:-1])
        return ConfigError(f"unknown key {name!r}", where=where, allowed=allowed, hint=nearest(name, allowed))
    if first["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return ConfigError(f"key {name!r} is missing", where=document.where((*at, *location[:-1])))
    if first["type"] == "literal_error":
        allowed = [part.strip(" '") for part in first["ctx"]["expected"].replace(" or ", ",").split(",")]
        got = first["input"]
        return ConfigError(f"got {got!r}", where=where, allowed=allowed, hint=nearest(str(got), allowed))
    if first["type"] in ("too_short", "string_too_short"):
        return ConfigError("must not be empty", where=where)
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return ConfigError(f"{message}, got {first['input']!r}", where=where)


def _keys(kind: Any, location: Location) -> list[str]:
    """Return the keys allowed in the mapping that `location` leads to."""
    for part in location:
        kind = _plain(kind)
        kind = get_args(kind)[0] if isinstance(part, int) else _fields(kind).get(part, kind)
    return list(_fields(_plain(kind)))


def _plain(kind: Any) -> Any:
    while get_origin(kind) is not None and hasattr(kind, "__metadata__"):
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, types.UnionType):
        return _plain(next(arg for arg in get_args(kind) if arg is not type(None)))
    return kind


def _fields(kind: Any) -> Mapping[str, Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {info.alias or name: info.annotation for name, info in kind.model_fields.items()}
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return {item.name: hints[item.name] for item in fields(kind)}
    return {}

"""YAML 1.2 files whose errors name file, line and key.

YAML 1.2 and not 1.1, so that the language code `no` stays Norwegian and `6e-7` is a number.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from mlbench.errors import ConfigError, Where, nearest

T = TypeVar("T")
IN_YAML = {
    "string_pattern_mismatch": "should start with a letter or digit and hold only letters, digits and . _ + -",
    "string_type": "should be text",
    "model_type": "should be a mapping of keys",
    "dataclass_type": "should be a mapping of keys",
    "dict_type": "should be a mapping of keys",
    "bool_type": "should be true or false",
    "list_type": "should be a list",
    "tuple_type": "should be a list",
}
"""Pydantic's errors that speak of Python or JSON, in the words of a YAML file."""
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
        location = _in_file(self.data, location)
        key = dotted(location)
        if any(key == flag or key.startswith((f"{flag}.", f"{flag}[")) for flag in self.flags):
            return Where(file="--set", key=key)
        return Where(file=self.path, line=_line(self.data, location), key=key)


def dotted(location: Location) -> str:
    """Return `methods[1].with.tau` for ("methods", 1, "with", "tau")."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _in_file(node: Any, location: Location) -> Location:
    """Cut off what lies below a scalar: a member of a union, or the long form of something written in short."""
    for depth, part in enumerate(location):
        if not isinstance(node, (dict, list)):
            return location[:depth]
        try:
            node = node[part]  # type: ignore[index]  # a wrong kind of index ends here as well
        except (KeyError, IndexError, TypeError):
            return location
    return location


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
    if path.is_dir():
        raise ConfigError(f"{str(path)!r} is a folder, not a shootout file")
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
    """Set `training.steps=3` or `methods[1].with.tau=2` and return the key as errors show it."""
    key, equals, value = override.partition("=")
    parts: Location = tuple(int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]\s]+", key))
    if not equals or not parts:
        raise ConfigError(f"--set takes key=value, got {override!r}", hint="for example --set training.steps=100")
    node = data
    for depth, part in enumerate(parts):
        if isinstance(node, dict) if isinstance(part, str) else isinstance(node, list) and part < len(node):
            if depth + 1 == len(parts):
                node[part] = _parse(value, "--set")
            else:
                node = node.setdefault(part, {}) if isinstance(node, dict) else node[part]
            continue
        above = dotted(parts[:depth]) or "the file"
        wanted = "a mapping" if isinstance(part, str) else f"a list of more than {part} entries"
        raise ConfigError(f"{above!r} is not {wanted}", where=Where(file="--set", key=dotted(parts)))
    return dotted(parts)


def validate(kind: type[T], data: Any, document: Document, at: Location = ()) -> T:
    """Return `data` as an instance of `kind`, strictly: no number is made of a string.

    Raises:
        ConfigError: Names the first key that is wrong, what is allowed there and the nearest name.
    """
    # A plain dataclass ignores unknown keys by itself; inside of a model it takes over what the model forbids.
    strict = create_model("Strict", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), value=(kind, ...))
    try:
        # JSON mode is strict about scalars and still turns lists into tuples.
        found: T = strict.model_validate_json(json.dumps({"value": data}, default=str), strict=True).value  # type: ignore[attr-defined]
    except ValidationError as error:
        raise _config_error(kind, error, document, at) from error
    return found


def _config_error(kind: Any, error: ValidationError, document: Document, at: Location) -> ConfigError:
    first = error.errors(include_url=False)[0]
    location: Location = first["loc"][1:]
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
        allowed += ["a list"] if "should be a list" in _in_words(error, document, where, at) else []
        return ConfigError(f"got {got!r}", where=where, allowed=allowed, hint=nearest(str(got), allowed))
    if first["type"] in ("too_short", "string_too_short"):
        return ConfigError("must not be empty", where=where)
    got = "nothing" if first["input"] is None else repr(first["input"])
    return ConfigError(f"{_in_words(error, document, where, at)}, got {got}", where=where)


def _in_words(error: ValidationError, document: Document, where: Where, at: Location) -> str:
    """Return what is allowed at a place; the members of a union are errors of one place."""
    here = [each for each in error.errors(include_url=False) if document.where((*at, *each["loc"][1:])) == where]
    allowed = dict.fromkeys(IN_YAML.get(each["type"]) or _sentence(each["msg"]) for each in here)
    return " or ".join(allowed).replace(" or should be ", " or ")


def _sentence(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")


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

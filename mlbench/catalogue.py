"""Plugins in words: the text behind `list`, `show` and `check`."""

from __future__ import annotations

import dataclasses
import inspect
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from mlbench import plugins, sources
from mlbench.errors import PluginError, UserError, nearest, unknown

KINDS = {"methods": "method", "tasks": "task", "judges": "judge"}


def listing(what: str) -> list[dict[str, str]]:
    """Return name, state and one line about every plugin of a kind, or the model sources.

    Raises:
        UserError: There is no such list.
    """
    if what == "models":
        return [
            {"name": size, "about": "a model organism built on this machine", "state": "ok"} for size in sources.SIZES
        ]
    if what not in KINDS:
        raise unknown("list", what, [*KINDS, "models"])
    return [listed(KINDS[what], name) for name in plugins.names(KINDS[what])]


def listed(kind: str, name: str) -> dict[str, str]:
    """Return name, state and one line about a plugin."""
    try:
        cls = plugins.load(kind, name)
    except PluginError as error:
        return {"name": name, "state": "unavailable", "about": error.message}
    about = (inspect.getdoc(inspect.getmodule(cls)) or "").split("\n")[0]
    mark = " (reconstruction)" if getattr(cls(), "fidelity", "") == "reconstruction" else ""
    return {"name": name, "state": "ok", "about": about + mark}


def listing_text(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a list as text."""
    width = max((len(row["name"]) for row in rows), default=0)
    lines = []
    for row in rows:
        state = "" if row["state"] == "ok" else "UNAVAILABLE: "
        lines.append(f"{row['name']:<{width}}  {state}{row['about']}")
    return "\n".join(lines)


def about(name: str) -> dict[str, Any]:
    """Return what there is to know about a plugin.

    Raises:
        PluginError: No plugin has that name, or it cannot be imported.
    """
    kind = next((kind for kind in plugins.KINDS if name in plugins.names(kind)), None)
    if kind is None:
        options = [option for kind in plugins.KINDS for option in plugins.names(kind)]
        raise PluginError(f"unknown plugin {name!r}", allowed=options, hint=nearest(name, options))
    cls = plugins.load(kind, name)
    module = inspect.getmodule(cls)
    made = cls()
    facts = {key: getattr(made, key) for key in ("paper", "source", "licence", "kind", "judge") if hasattr(made, key)}
    if kind == "method":
        facts |= {"follows": getattr(made, "fidelity", "baseline"), "does": getattr(cls, "effect", "training")}
        facts["needs"] = sorted(made.needs) or "nothing"
    if kind == "task":
        facts["languages"] = list(made.languages)
    return {
        "name": name,
        "plugin": kind,
        "file": inspect.getsourcefile(cls),
        "about": inspect.getdoc(module) or "",
        "facts": facts,
        "fields": _fields(cls),
        "field_notes": inspect.getdoc(cls) or "",
        "presets": {name: dataclasses.asdict(preset) for name, preset in getattr(cls, "presets", {}).items()},
        "reported": list(getattr(cls, "reported", ())),
    }


def _fields(cls: Any) -> list[dict[str, str]]:
    hints = get_type_hints(cls, include_extras=True)
    return [
        {"name": item.name, "type": _type_name(hints[item.name]), "default": _default(item)}
        for item in dataclasses.fields(cls)
    ]


def _type_name(hint: Any) -> str:
    """Return a type as a user reads it: `float > 0`, `'dpo' or 'sft'`, `list of str`."""
    if get_origin(hint) is Annotated:
        base, *notes = get_args(hint)
        limits = [limit for note in notes for limit in getattr(note, "metadata", [])]
        signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
        ranges = [
            f"{sign} {getattr(limit, name)}" for limit in limits for name, sign in signs.items() if hasattr(limit, name)
        ]
        return " ".join([_type_name(base), " and ".join(ranges)]).strip()
    if get_origin(hint) is Literal:
        return " or ".join(repr(value) for value in get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_type_name(part) for part in get_args(hint))
    if get_origin(hint) in (tuple, list):
        return f"list of {_type_name(get_args(hint)[0])}"
    if isinstance(get_origin(hint), type) and issubclass(get_origin(hint), Mapping):
        return f"mapping of {' to '.join(_type_name(part) for part in get_args(hint))}"
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _default(item: Any) -> str:
    if item.default_factory is not dataclasses.MISSING:
        return repr(item.default_factory())
    default = getattr(item.default, "default", item.default)  # pydantic's Field wraps it
    if factory := getattr(item.default, "default_factory", None):
        return repr(factory())
    return "required" if default is dataclasses.MISSING else repr(default)


def about_text(facts: Mapping[str, Any]) -> str:
    """Return a plugin's description as text."""
    lines = [f"{facts['name']} ({facts['plugin']})  {facts['file']}", "", facts["about"], ""]
    lines += [
        f"{name}: {', '.join(value) if isinstance(value, list) else value}" for name, value in facts["facts"].items()
    ]
    if facts["fields"]:
        width = max(len(item["name"]) for item in facts["fields"])
        lines += ["", "fields (name, default, type):"]
        lines += [f"  {item['name']:<{width}}  {item['default']:<16} {item['type']}" for item in facts["fields"]]
        lines += ["", facts["field_notes"]]
    for name, preset in facts["presets"].items():
        changes = {**preset["fields"], **{f"training.{key}": value for key, value in preset["training"].items()}}
        lines += ["", f"{facts['name']}[{name}]: {preset['note']}"]
        lines += ["  " + ", ".join(f"{key} = {value!r}" for key, value in changes.items())] if changes else []
    if facts["reported"]:
        lines += ["", "reported by the paper (never ranked with measured numbers):"]
        lines += ["  " + ", ".join(f"{value}" for value in row.values()) for row in facts["reported"]]
    return "\n".join(lines)


def check(names: Sequence[str], file: str | None) -> list[Any]:
    """Run the contract suite over plugins, printing each finding as it comes.

    Raises:
        UserError: A plugin has an unknown name or the file is not KIND:PATH.
    """
    from mlbench import check as suite

    chosen = [_named(name) for name in names]
    if file is not None:
        kind, _, path = file.partition(":")
        if kind not in plugins.KINDS or not Path(path).is_file():
            raise UserError(
                f"--plugin takes KIND:FILE, got {file!r}", allowed=[f"{kind}:FILE" for kind in plugins.KINDS]
            )
        chosen.append((kind, plugins.add_file(kind, Path(path))))
    if not chosen:
        chosen = [(kind, name) for kind in plugins.KINDS for name in plugins.names(kind)]
    findings = []
    for kind, name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            for finding in suite.plugin(kind, plugins.load(kind, name), Path(folder)):
                findings.append(finding)
                mark = "FAIL" if not finding.passed else "skip" if finding.skipped else "ok  "
                detail = f": {finding.detail}" if finding.detail else ""
                print(f"{mark} {kind} {name}: {finding.check}{detail}", flush=True)
    return findings


def _named(name: str) -> tuple[str, str]:
    for kind in plugins.KINDS:
        if name in plugins.names(kind):
            return kind, name
    options = [option for kind in plugins.KINDS for option in plugins.names(kind)]
    raise PluginError(f"unknown plugin {name!r}", allowed=options, hint=nearest(name, options))

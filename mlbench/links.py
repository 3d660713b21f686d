"""A method as a shootout names it -> the method and everything its jobs need, as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from mlbench import plugins
from mlbench.core import Method, Preset, Training
from mlbench.errors import ConfigError, nearest
from mlbench.shootout import Loaded, MethodEntry
from mlbench.yamlfile import Location, validate


class Resolved(NamedTuple):
    """One link of a chain.

    Attributes:
        method: The method with its fields, to ask it questions.
        data: The same as plain data: plugin, preset, fields, needs, training, code.
    """

    method: Method
    data: dict[str, Any]


def chain(shootout: Loaded, index: int) -> list[Resolved]:
    """Return the links of one method entry.

    Raises:
        UserError: A plugin, preset, field or budget is wrong, or the chain ends in a system prompt.
    """
    entry = shootout.settings.methods[index]
    links = [_resolve(shootout, index, entry, at) for at in range(len(entry.use))]
    if len(links) > 1 and links[-1].data["effect"] == "prompt":
        message = f"the chain {entry.label!r} ends in a system prompt, which no method before it has seen in training"
        last = entry.use[-1].method
        raise ConfigError(
            message,
            where=shootout.document.where(shootout.place(("methods", index, "use"))),
            hint=f"put {last!r} first: what follows is then trained and edited with the prompt in place",
        )
    return links


def _resolve(shootout: Loaded, index: int, entry: MethodEntry, at: int) -> Resolved:
    link = entry.use[at]
    # What is written in short has no such place; errors then name the deepest place that the file has.
    place: Location = ("methods", index, "use", at)
    location = ("methods", index, "with") if entry.fields else (*place, "with")
    with shootout.at(*place, "method"):
        cls = plugins.load("method", link.plugin)
        preset = _preset(cls, link.plugin, link.preset)
    fields = {**preset.fields, **(link.fields or entry.fields)}
    method = validate(cls, fields, shootout.document, shootout.place(location))
    with shootout.at(*place, "method"):
        bases = {base: plugins.source_hash("method", base) for base in getattr(method, "builds_on", ())}
    training = validate(
        Training,
        _budget(shootout, preset) | entry.training,
        shootout.document,
        shootout.place(("methods", index, "training")),
    )
    return Resolved(
        method,
        {
            "method": link.plugin,
            "preset": link.preset,
            "fields": dataclasses.asdict(method),
            "needs": sorted(method.needs),
            "effect": getattr(cls, "effect", "training"),
            "fidelity": getattr(method, "fidelity", "baseline"),
            "training": asdict(training),
            "paper": cls.paper,
            "code": plugins.source_hash("method", link.plugin),
            "bases": bases,
            "plugin_files": plugins.files("method", [link.plugin, *bases]),
        },
    )


def _preset(cls: type, plugin: str, name: str) -> Preset:
    presets: Mapping[str, Preset] = getattr(cls, "presets", {})
    if not name:
        return Preset(note="")
    if name not in presets:
        hint = nearest(name, presets) or ("" if presets else f"{plugin!r} has no presets")
        raise ConfigError(f"{plugin!r} has no preset {name!r}", allowed=presets, hint=hint)
    return presets[name]


def _budget(shootout: Loaded, preset: Preset) -> dict[str, Any]:
    """Return the budget before the entry's own changes: what the file names wins over the preset."""
    named = shootout.document.data.get("training") or {}
    budget = asdict(shootout.settings.training)
    return budget | {name: value for name, value in preset.training.items() if name not in named}


def unequal_budgets(methods: Mapping[str, Sequence[Mapping[str, Any]]], baseline: str) -> list[str]:
    """Return a sentence on methods that do not train as long as the baseline: a gain may be that of the steps."""
    rows = {
        label: sum(
            link["training"]["steps"] * link["training"]["batch_size"] for link in chain if link["effect"] == "training"
        )
        for label, chain in methods.items()
    }
    control = rows[baseline]
    other = [f"{label} {count:,}" for label, count in rows.items() if count and control and count != control]
    return [f"rows trained on differ from the baseline's {control:,}: {', '.join(other)}"] if other else []

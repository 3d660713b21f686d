"""The search for settings, as a shootout of its own: one method per trial, asked the development split.

Every method that is searched gets the same number of trials, drawn without repetition from its search space.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from mlbench import plugins, rule
from mlbench.core import Task
from mlbench.errors import ConfigError, nearest
from mlbench.shootout import Loaded, MethodEntry, Select, TaskEntry

TRAINING = "training."

Values = Mapping[str, Any]
"""Key of a search -> the value of one trial."""


def label(method: str, number: int) -> str:
    """Return what the trial of a method is called."""
    return f"{method}.trial-{number}"


def trials(shootout: Loaded, index: int) -> tuple[Values, ...]:
    """Return the trials of one method; equal seeds draw equal trials.

    Raises:
        ConfigError: The search space is smaller than the number of trials.
    """
    entry, select = shootout.settings.methods[index], _select(shootout)
    space = {key: list(values) for key, values in entry.search.items()}
    size = math.prod(map(len, space.values()))
    if size < select.trials:
        raise shootout.error(
            f"the search of {entry.label!r} has {size} combinations, fewer than the {select.trials} trials that every "
            "method gets; give it more values",
            ("methods", index, "search"),
        )
    picked = random.Random(f"{select.seed} {entry.label}").sample(range(size), select.trials)
    return tuple(_combination(space, number) for number in sorted(picked))


def _select(shootout: Loaded) -> Select:
    assert shootout.settings.select is not None
    return shootout.settings.select


def _combination(space: Mapping[str, Sequence[Any]], number: int) -> Values:
    values = {}
    for key, options in space.items():
        number, at = divmod(number, len(options))
        values[key] = options[at]
    return values


def stage(shootout: Loaded) -> Loaded:
    """Return the shootout of all trials, on the development split of the tasks and in the training languages only.

    Raises:
        ConfigError: A search is too small or names no setting, or the tasks have no such split to spare.
    """
    settings, select = shootout.settings, _select(shootout)
    entries: list[MethodEntry] = []
    origins: list[tuple[str | int, ...]] = []
    compared_with = rule.parse(select.rule).methods
    for index, entry in enumerate(settings.methods):
        if not entry.search:
            if entry.label in compared_with:
                entries.append(entry)
                origins.append(("methods", index))
            continue
        for number, values in enumerate(trials(shootout, index)):
            settled_entry = _settled_entry(shootout, index, values)
            entries.append(settled_entry.model_copy(update={"name": label(entry.label, number)}))
            origins.append(("methods", index, "search"))
    changes = {
        "name": f"{settings.name}.selection",
        "methods": entries,
        "tasks": [_on_split(task, select.split) for task in _tasks(shootout)],
        "unseen": [],
        "languages": _trained(shootout),
        "seeds": select.seeds,
        "select": None,
        "baseline": None,
        "references": [],
    }
    return dataclasses.replace(shootout, settings=settings.model_copy(update=changes), origins=tuple(origins))


def _trained(shootout: Loaded) -> list[str] | None:
    settings = shootout.settings
    if settings.languages or not settings.unseen:
        return settings.languages
    known = [code for task in settings.tasks for code in _made(task).languages]
    return [code for code in dict.fromkeys(known) if code not in settings.unseen]


def _tasks(shootout: Loaded) -> list[TaskEntry]:
    """Return the tasks that have a split to spare."""
    found = []
    split = _select(shootout).split
    for index, task in enumerate(shootout.settings.tasks):
        with shootout.at("tasks", index):
            fields = {item.name: item for item in dataclasses.fields(plugins.load("task", task.plugin))}
        if "split" not in fields:
            continue
        default = getattr(fields["split"].default, "default", fields["split"].default)
        asked = task.fields.get("split", default)
        if asked in (split, "all"):  # "all" is how real data are published, the development part among them
            message = f"the final table asks the split {asked!r} of {task.label!r}, on which settings are selected"
            raise shootout.error(message, ("select", "split"))
        found.append(task)
    if not any(plugins.load("task", task.plugin).kind == "safety" for task in found):
        raise shootout.error("no safety task has a `split` on which settings could be selected", ("select",))
    return found


def _made(task: TaskEntry) -> Task:
    cls = plugins.load("task", task.plugin)
    made: Task = cls(**task.filled(cls))
    return made


def _on_split(task: TaskEntry, split: str) -> TaskEntry:
    return task.model_copy(update={"fields": {**task.fields, "split": split}})


def settled(shootout: Loaded, chosen: Mapping[str, Values]) -> Loaded:
    """Return the shootout with the chosen values in place of the searches; method label -> values."""
    entries = [
        _settled_entry(shootout, index, chosen[entry.label]) if entry.search else entry
        for index, entry in enumerate(shootout.settings.methods)
    ]
    return dataclasses.replace(shootout, settings=shootout.settings.model_copy(update={"methods": entries}))


def _settled_entry(shootout: Loaded, index: int, values: Values) -> MethodEntry:
    entry = shootout.settings.methods[index]
    budget = dict(entry.training)
    # Once values are put into links, the short form `with` has to go there as well.
    links = [link.model_copy(update={"fields": dict(link.fields or entry.fields)}) for link in entry.use]
    for key, value in values.items():
        if key.startswith(TRAINING):
            budget[key.removeprefix(TRAINING)] = value
            continue
        method, dot, name = key.rpartition(".")
        names = [link.plugin for link in links]
        if len(links) > 1 and (not dot or method not in names):
            options = [f"{other}.{name}" for other in names]
            raise ConfigError(
                f"{key!r} does not say which method of the chain it belongs to",
                where=shootout.document.where(("methods", index, "search", key)),
                allowed=options,
                hint=nearest(key, options),
            )
        links[names.index(method) if len(links) > 1 else 0].fields[name if len(links) > 1 else key] = value
    return entry.model_copy(
        update={"use": links, "fields": {}, "training": budget, "search": {}, "name": entry.name or entry.label}
    )

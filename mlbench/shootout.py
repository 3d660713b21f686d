"""A shootout: one YAML file that says which methods meet which models, languages, tasks and seeds.

Smallest example:

    name: first
    models: [organism:small]
    methods: [none, sft, mlc]
    tasks: [organism_harm, organism_benign]
    unseen: [u1]
    baseline: sft
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from mlbench import rule
from mlbench.core import Language, Training
from mlbench.errors import ConfigError, UserError, nearest
from mlbench.formats import CorpusEntry
from mlbench.yamlfile import Document, Location, read, validate

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=60)]


class Entry(BaseModel):
    """Settings refuse keys they do not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


class ModelEntry(Entry):
    """A base model: `organism:small`, a local folder, or a hub id with the commit to use.

    `pivot` is the language whose safety is carried over in this model, where it is not the shootout's.
    """

    source: Annotated[str, Field(min_length=1)]
    name: str = ""
    revision: str = ""
    pivot: Language | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"


def _method_name(text: str) -> str:
    if not re.fullmatch(r"[^\[\]]+(\[[^\[\]]+\])?", text):
        raise ValueError("should be a method's name, or name[preset]")
    return text


class Link(Entry):
    """One method of a chain with its own fields; `mlc[released]` names one of the method's presets."""

    method: Annotated[str, AfterValidator(_method_name)]
    fields: dict[str, Any] = Field(default={}, alias="with")

    @property
    def plugin(self) -> str:
        """The method's name without the preset."""
        return self.method.partition("[")[0]

    @property
    def preset(self) -> str:
        """The preset's name, "" for none."""
        return self.method.partition("[")[2].removesuffix("]")


def _links(value: Any) -> Any:
    items = value if isinstance(value, list) else [value]
    return [{"method": item} if isinstance(item, str) else item for item in items]


class MethodEntry(Entry):
    """A method, or a chain of methods each starting from the checkpoint of the one before it.

    `search` gives the values that selection may try: field -> list, `training.<key>` for the budget, and in a chain
    `<method>.<field>`.
    """

    use: Annotated[list[Link], BeforeValidator(_links), Field(min_length=1)]
    name: Name | None = None
    fields: dict[str, Any] = Field(default={}, alias="with")
    training: dict[str, Any] = {}
    search: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}

    @property
    def label(self) -> str:
        """How tables call it."""
        return self.name or "+".join(link.method for link in self.use)


class JudgeEntry(Entry):
    """A judge with its fields."""

    use: Annotated[str, Field(min_length=1)]
    fields: dict[str, Any] = Field(default={}, alias="with")


def _named(key: str) -> BeforeValidator:
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class TaskEntry(Entry):
    """An evaluation task with its fields; `judge` overrides the task's own judge.

    `lm_eval:belebele_{language}` is the task lm_eval with an argument, which fills the field that the task keeps it in.
    """

    use: Annotated[str, Field(min_length=1)]
    name: Name | None = None
    fields: dict[str, Any] = Field(default={}, alias="with")
    judge: Annotated[JudgeEntry, _named("use")] | None = None

    @property
    def label(self) -> str:
        """How tables call it."""
        return self.name or re.sub(r"[^A-Za-z0-9]*\{[^{}]*\}", "", self.argument) or self.plugin

    @property
    def plugin(self) -> str:
        """The task's name without the argument."""
        return self.use.partition(":")[0]

    @property
    def argument(self) -> str:
        """What follows the colon, "" for nothing."""
        return self.use.partition(":")[2]

    def filled(self, task: Any) -> dict[str, Any]:
        """Return the fields, the argument among them.

        Raises:
            ConfigError: The task takes no argument, or it is given twice.
        """
        if not self.argument:
            return self.fields
        name = getattr(task, "argument", "")
        if not name:
            raise ConfigError(f"the task {self.plugin!r} takes no argument", hint=f"write {self.plugin!r} alone")
        if name in self.fields:
            raise ConfigError(f"{name!r} is given twice, in `use` and in `with`")
        return {name: self.argument, **self.fields}


class Generation(Entry):
    """How answers are written. `batch_size` and `api_key_env` are no part of a job's key.

    batch_size: answers written side by side; requests in flight where a server writes them.
    temperature: 0 takes the likeliest token; above, each prompt gets `n` answers, drawn with `top_p` and `seed`.
    system_prompt: asked of all methods alike; a method's own system prompt comes after it.
    backend: auto = transformers, or the server where there is a `server_url`; never chosen by what a machine has.
    server_model: what the server at `server_url` (".../v1") calls the model of the shootout; no method may change it.
    api_key_env: environment variable with the server's key, "" for none.
    """

    max_new_tokens: Annotated[int, Field(ge=1)] = 256
    batch_size: Annotated[int, Field(ge=1)] = 64
    n: Annotated[int, Field(ge=1)] = 1
    temperature: Annotated[float, Field(ge=0)] = 0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1
    seed: Annotated[int, Field(ge=0)] = 0
    system_prompt: str = ""
    backend: Literal["auto", "transformers", "continuous", "vllm", "server"] = "auto"
    server_url: Annotated[str, Field(pattern=r"^(https?://[^@\s]+)?$")] = ""
    server_model: str = ""
    api_key_env: str = ""


def _rule(text: str) -> str:
    rule.parse(text)
    return text


class Select(Entry):
    """Choice of settings before the final runs: each method with a `search` gets the same number of trials.

    Trials are drawn from the search space by `seed`, trained with `seeds`, and judged on the tasks' `split` in the
    training languages; the final table never sees that split, nor selection the unseen languages.
    """

    trials: Annotated[int, Field(ge=1)]
    split: Annotated[str, Field(min_length=1)] = "dev"
    rule: Annotated[str, AfterValidator(_rule)] = rule.EXAMPLE
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1)] = [1000]
    seed: Annotated[int, Field(ge=0)] = 0


class Statistics(Entry):
    """Significance level, resamples of bootstrap and permutation tests, their seed, and acceptable losses.

    over_refusal_margin: a rise of over-refusal up to this counts as no loss, in percentage points; utility_margin: the
    same for a fall of utility.
    """

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    resamples: Annotated[int, Field(ge=100)] = 10_000
    seed: Annotated[int, Field(ge=0)] = 0
    planned_sd: Annotated[float, Field(gt=0, le=1)] = 0.25
    over_refusal_margin: Annotated[float, Field(ge=0, le=100)] = 2
    utility_margin: Annotated[float, Field(ge=0, le=100)] = 1


class Schedule(Entry):
    """What one job gets, and what happens when it fails.

    fail_on_error: false = the grid always goes on; true = stop at the first failure; a number below 1 = stop
    above that share of failed jobs; a whole number = stop above that many.
    """

    cpus: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[float, Field(ge=0)] = 0
    retries: Annotated[int, Field(ge=0)] = 2
    timeout_minutes: Annotated[float, Field(gt=0)] | None = None
    fail_on_error: bool | Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)] = False


class Tracking(Entry):
    """The MLflow mirror. `uri` empty = a sqlite file beside the run folder."""

    enabled: bool = True
    uri: str = ""


class Shootout(Entry):
    """A validated shootout file."""

    name: Name
    title: str = ""
    models: Annotated[list[Annotated[ModelEntry, _named("source")]], Field(min_length=1)]
    methods: Annotated[list[Annotated[MethodEntry, _named("use")]], Field(min_length=1)]
    tasks: Annotated[list[Annotated[TaskEntry, _named("use")]], Field(min_length=1)]
    pivot: Language = "en"
    languages: Annotated[list[Language], Field(min_length=1)] | None = None
    unseen: list[Language] = []
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1)] = [0]
    baseline: str | None = None
    references: list[str] = []
    corpus: Annotated[CorpusEntry, _named("data")] | None = None
    training: Training = Training()
    select: Select | None = None
    generation: Generation = Generation()
    statistics: Statistics = Statistics()
    schedule: Schedule = Schedule()
    tracking: Tracking = Tracking()
    plugins: list[str] = []
    limit: Annotated[int, Field(ge=1)] | None = None
    out: str | None = None


@dataclass(frozen=True)
class Located:
    """Gives a user error that knows no place the place in the shootout that it is about."""

    document: Document
    location: Location

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UserError) and not str(error.where):
            error.where = self.document.where(self.location)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A shootout with the document it came from, so that later errors can name file and line."""

    settings: Shootout
    document: Document
    origins: tuple[Location, ...] = ()
    """Where each method comes from, in a shootout that was derived from the file."""

    def place(self, location: Location) -> Location:
        """Return the location in the file of a location in the settings."""
        if self.origins and location[0] == "methods" and len(location) > 1 and isinstance(location[1], int):
            return self.origins[location[1]]
        return location

    def at(self, *location: str | int) -> Located:
        """Return a context in which a user error that names no place gets this one."""
        return Located(self.document, self.place(location))

    def error(self, message: str, at: Location, *, options: Sequence[str] = (), name: str = "") -> ConfigError:
        """Return the error for a value of the file, with the nearest of `options` to `name`."""
        where = self.document.where(self.place(at))
        return ConfigError(message, where=where, allowed=options, hint=nearest(name, options))


def load(path: Path, overrides: Sequence[str] = ()) -> Loaded:
    """Return the validated shootout in a YAML file.

    Raises:
        ConfigError: Says what is wrong, where, what is allowed and the nearest valid name.
    """
    document = read(path, overrides)
    shootout = Loaded(settings=validate(Shootout, document.data, document), document=document)
    _refuse_duplicates(shootout)
    _check_names(shootout)
    return shootout


def _refuse_duplicates(shootout: Loaded) -> None:
    settings = shootout.settings
    lists: dict[str, list[Any]] = {
        "methods": [entry.label for entry in settings.methods],
        "tasks": [entry.label for entry in settings.tasks],
        "models": [entry.name or entry.source for entry in settings.models],
        "languages": settings.languages or [],
        "unseen": settings.unseen,
        "seeds": settings.seeds,
    }
    for key, items in lists.items():
        for index, item in enumerate(items):
            if item in items[:index]:
                hint = "; give one of them another `name`" if key in ("methods", "tasks", "models") else ""
                raise shootout.error(f"{item!r} occurs twice{hint}", (key, index))


def _check_names(shootout: Loaded) -> None:
    settings = shootout.settings
    labels = [entry.label for entry in settings.methods]
    if settings.baseline is not None and settings.baseline not in labels:
        message = f"the baseline {settings.baseline!r} is not among the methods"
        raise shootout.error(message, ("baseline",), options=labels, name=settings.baseline)
    for index, name in enumerate(settings.references):
        if name not in labels or name == settings.baseline:
            what = "is the baseline already" if name in labels else "is not among the methods"
            raise shootout.error(f"the reference {name!r} {what}", ("references", index), options=labels, name=name)
    for index, code in enumerate(settings.unseen):
        if code == settings.pivot:
            raise shootout.error(f"{code!r} is the pivot, so it cannot be unseen", ("unseen", index))
        if code in (settings.languages or []):
            message = f"{code!r} is among `languages` too; a language is either trained on or unseen"
            raise shootout.error(message, ("unseen", index))
    for index, entry in enumerate(settings.methods):
        if entry.fields and (len(entry.use) > 1 or entry.use[0].fields):
            message = "`with` is ambiguous for a chain; write use: [{method: ..., with: {...}}, ...]"
            raise shootout.error(message, ("methods", index, "with"))
    _check_generation(shootout)
    _check_selection(shootout)


def _check_generation(shootout: Loaded) -> None:
    """Refuse settings of which one does nothing beside another."""
    found = shootout.settings.generation
    for key in ("n", "top_p"):
        if found.temperature == 0 and getattr(found, key) != 1:
            raise shootout.error(f"`{key}` needs a `temperature` above 0: greedy answers are all the same",
                                 ("generation", key))  # fmt: skip
    server = {"server_url": found.server_url, "server_model": found.server_model}
    asked = found.backend == "server" or (found.backend == "auto" and any(server.values()))
    for key, value in {**server, "api_key_env": found.api_key_env}.items():
        if value and not asked:
            raise shootout.error(f"`{key}` is for the backend `server`", ("generation", key))
        if asked and not value and key in server:
            raise shootout.error(f"the backend `server` needs `{key}`", ("generation", "backend"))


def _check_selection(shootout: Loaded) -> None:
    settings = shootout.settings
    labels = [entry.label for entry in settings.methods]
    searched = [entry.label for entry in settings.methods if entry.search]
    if settings.select is None:
        if searched:
            message = "`search` needs `select`, which says by what rule settings are chosen"
            raise shootout.error(message, ("methods", labels.index(searched[0]), "search"))
        return
    if not searched:
        raise shootout.error("no method has a `search`, so there is nothing to select", ("select",))
    for name in rule.parse(settings.select.rule).methods:
        if name not in labels:
            message = f"the rule refers to {name!r}, which is not among the methods"
            raise shootout.error(message, ("select", "rule"), options=labels, name=name)
        if name in searched:
            raise shootout.error(f"the rule refers to {name!r}, which is itself searched", ("select", "rule"))

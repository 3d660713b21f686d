"""A validated shootout expanded into its plan.

Planning starts nothing and imports neither torch nor ray: it validates every name, field, language and need,
reads the prompts and the corpus, removes training prompts that the evaluation also asks, and counts the work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlbench import corpus as corpora
from mlbench import formats, generation, links, plugins, sources
from mlbench.core import Corpus, Language, Model, Need, Prompt, Shape, Task
from mlbench.errors import AbsentError, ConfigError, DataError, UserError
from mlbench.plan import PLACEMENT, Cell, Job, JobKind, Plan, digest, engine_hash
from mlbench.shootout import JudgeEntry, Loaded, ModelEntry, Shootout, TaskEntry
from mlbench.sketch import Sketch
from mlbench.yamlfile import Location, validate


def make(shootout: Loaded, sketch: Sketch | None = None) -> Plan:
    """Return the plan of a shootout.

    Args:
        shootout: The validated file.
        sketch: Stands in for models and data that are not on this machine; without one they are an error.

    Raises:
        UserError: A name, field, language or need is wrong; says where in the file.
    """
    _register_files(shootout)
    return _Planner(shootout, sketch).plan()


def _register_files(shootout: Loaded) -> None:
    plugins.forget_files()
    for index, item in enumerate(shootout.settings.plugins):
        kind, _, name = item.rpartition(":")
        path = Path(name).expanduser()
        if kind not in plugins.KINDS:
            allowed = [f"{kind}:path/to/file.py" for kind in plugins.KINDS]
            raise shootout.error(f"{item!r} does not say what the plugin is", ("plugins", index), options=allowed)
        if path.suffix != ".py" or not path.is_file():
            raise shootout.error(f"plugin file {name!r} does not exist (seen from {Path.cwd()})", ("plugins", index))
        if taken := plugins.names(kind).get(path.stem):
            message = f"there is a {kind} {path.stem!r} already, {taken}; give the file another name"
            raise shootout.error(message, ("plugins", index))
        plugins.add_file(kind, path)


class _Planner:
    """Collects jobs while it walks the axes; equal jobs of different cells are one job."""

    def __init__(self, shootout: Loaded, sketch: Sketch | None) -> None:
        self.shootout = shootout
        self.sketch = sketch
        self.settings: Shootout = shootout.settings
        self.jobs: dict[str, Job] = {}
        self.cells: list[Cell] = []
        self.excluded: list[str] = []
        self.notes: list[str] = []
        self.corpora: dict[str, Corpus] = {}
        self.views: dict[frozenset[Need], str] = {}
        self.prompts: dict[str, tuple[Prompt, ...]] = {}
        self.texts: dict[str, list[Prompt]] = {}
        self.overlaps: dict[str, Mapping[str, Mapping[str, int]]] = {}
        self.asking: dict[tuple[str, Language], dict[str, Any]] = {}

    def plan(self) -> Plan:
        self.models = self._models()
        self.tasks = {entry.label: self._task(index, entry) for index, entry in enumerate(self.settings.tasks)}
        self.languages = self._languages()
        self.asked = {entry.label: self._asked(index, entry) for index, entry in enumerate(self.settings.tasks)}
        self.judges = {entry.label: self._judge(index, entry) for index, entry in enumerate(self.settings.tasks)}
        self.chains = [links.chain(self.shootout, index) for index in range(len(self.settings.methods))]
        self.methods = {
            entry.label: [link.data for link in chain]
            for entry, chain in zip(self.settings.methods, self.chains, strict=True)
        }
        generation.check(self.shootout, self.methods)
        self.notes += links.unequal_budgets(self.methods, self.settings.baseline or self.settings.methods[0].label)
        for model in self.models:
            self._model_cells(model)
        if not self.cells:
            raise UserError("nothing to run: every cell is excluded", allowed=self.excluded)
        return Plan(
            shootout=self.shootout,
            models=tuple(self.models),
            tasks=self.tasks,
            methods={label: tuple(links) for label, links in self.methods.items()},
            jobs=self.jobs,
            cells=tuple(self.cells),
            excluded=tuple(dict.fromkeys(self.excluded)),
            notes=tuple(dict.fromkeys(self.notes)),
            corpora=self.corpora,
            prompts=self.prompts,
            baseline=self.settings.baseline or self.settings.methods[0].label,
            languages=self.languages,
            overlaps=self.overlaps,
            missing=tuple(self.sketch.missing) if self.sketch else (),
        )

    def _models(self) -> list[Model]:
        models: list[Model] = []
        for index, entry in enumerate(self.settings.models):
            with self.shootout.at("models", index):
                found = self._resolve(entry)
            if found.name in [model.name for model in models]:
                message = f"two models are called {found.name!r}; give one of them another `name`"
                raise self.shootout.error(message, ("models", index))
            models.append(found)
        return models

    def _resolve(self, entry: ModelEntry) -> Model:
        try:
            return sources.resolve(entry.source, name=entry.name, revision=entry.revision, dtype=entry.dtype)
        except AbsentError:
            if self.sketch is None:
                raise
            return self.sketch.model(entry)

    def _plugin(self, kind: str, name: str, location: Location) -> Any:
        with self.shootout.at(*location):
            return plugins.load(kind, name)

    def _task(self, index: int, entry: TaskEntry) -> Task:
        cls = self._plugin("task", entry.plugin, ("tasks", index, "use"))
        with self.shootout.at("tasks", index, "use"):
            fields = entry.filled(cls)
        task: Task = validate(cls, fields, self.shootout.document, ("tasks", index, "with"))
        return task

    def _judge(self, index: int, entry: TaskEntry) -> dict[str, Any]:
        """Return a task's judge as plain data: the task's own one unless the entry names another."""
        chosen = entry.judge or JudgeEntry(use=self.tasks[entry.label].judge)
        cls = self._plugin("judge", chosen.use, ("tasks", index, "judge"))
        judge = validate(cls, chosen.fields, self.shootout.document, ("tasks", index, "judge", "with"))
        if hasattr(judge, "check"):
            with self.shootout.at("tasks", index, "judge"):
                self._check_judge(judge, chosen.use)
        return {
            "judge": chosen.use,
            "fields": asdict(judge),
            "code": plugins.source_hash("judge", chosen.use),
            "plugin_files": plugins.files("judge", [chosen.use]),
        }

    def _check_judge(self, judge: Any, name: str) -> None:
        try:
            judge.check()
        except UserError as error:
            if self.sketch is None:
                raise
            self.sketch.note(f"judge {name}: {error.message}")

    def _languages(self) -> tuple[Language, ...]:
        known = tuple(dict.fromkeys(code for task in self.tasks.values() for code in task.languages))
        unseen = self.settings.unseen
        for key in ("languages", "unseen"):
            for index, code in enumerate(getattr(self.settings, key) or []):
                if code not in known:
                    raise self.shootout.error(
                        f"no task has the language {code!r}", (key, index), options=known, name=code
                    )
        languages = self.settings.languages or [code for code in known if code not in unseen]
        if self.settings.pivot not in languages:
            message = f"the pivot {self.settings.pivot!r} is not among the languages"
            raise self.shootout.error(message, ("pivot",), options=languages, name=self.settings.pivot)
        return (*languages, *unseen)

    def _asked(self, index: int, entry: TaskEntry) -> dict[Language, str]:
        """Read a task's prompts and return language -> key of its prompts."""
        keys: dict[Language, str] = {}
        task = self.tasks[entry.label]
        with self.shootout.at("tasks", index):
            for language in self.languages:
                if language in task.languages:
                    prompts = self._prompts(task, entry.label, language)
                    _check_prompts(prompts, entry.use, language)
                    self.texts.setdefault(entry.label, []).extend(prompts)
                    prompts = prompts[: self.settings.limit]
                    keys[language] = digest([asdict(prompt) for prompt in prompts])
                    self.prompts[keys[language]] = prompts
            if self.sketch is None or not self.sketch.missing:
                self.notes.extend(f"{entry.label}: {note}" for note in getattr(task, "notes", ()))
        return keys

    def _prompts(self, task: Task, label: str, language: Language) -> tuple[Prompt, ...]:
        try:
            return tuple(task.prompts(language))
        except AbsentError as error:
            if self.sketch is None:
                raise
            return self.sketch.prompts(task, label, language, error)

    def _model_cells(self, model: Model) -> None:
        corpus = self._corpus(model)
        self.views.clear()
        for index, entry in enumerate(self.settings.methods):
            with self.shootout.at("methods", index):
                for link in self.chains[index]:
                    _check(link, corpus, sources.shape(model))
            for seed in self.settings.seeds:
                chain = self._align(model, entry.label, seed, corpus)
                for task in self.settings.tasks:
                    self._task_cells(model, entry.label, seed, task, chain)

    def _corpus(self, model: Model) -> Corpus:
        entry = self.settings.models[self.models.index(model)]
        pivot = entry.pivot or self.settings.pivot
        trained = [code for code in self.languages if code not in self.settings.unseen]
        if pivot not in trained:
            at: Location = ("models", self.models.index(model), "pivot")
            raise self.shootout.error(f"the pivot {pivot!r} is not trained on", at, options=trained, name=pivot)
        with self.shootout.at("corpus"):
            found = self._read_corpus(model, pivot)
        kept = corpora.restrict(found, pivot, trained)
        if kept.examples and (lacking := [code for code in trained if code not in kept.languages]):
            self.notes.append(f"the corpus has nothing in {', '.join(lacking)}: no method can train on it")
        # Prompts of the organism share their few wordings, so nearly all of them look alike.
        made = self.settings.corpus is None or self.settings.corpus.data.startswith(sources.ORGANISM)
        cleaned = corpora.decontaminate(kept, self.texts, near=not made)
        self.overlaps[model.name] = {
            task: {str(kind): found for kind, found in counts.items()} for task, counts in cleaned.matches.items()
        }
        for label, ids in cleaned.overlaps.items():
            self.notes.append(f"{len(ids)} training prompts also occur in {label}; they were removed from training")
        return cleaned.corpus

    def _read_corpus(self, model: Model, pivot: Language) -> Corpus:
        entry = self.settings.corpus
        source = entry.data if entry else model.source.split("@")[0]
        if source.startswith(sources.ORGANISM):
            from mlbench.organism import recipe
            from mlbench.organism.corpus import corpus as organism_corpus

            return organism_corpus(recipe.parse(source)[0])
        if entry is None:
            return corpora.empty(pivot)
        if self.sketch is not None and not Path(entry.data).expanduser().exists():
            trained = [code for code in self.languages if code not in self.settings.unseen]
            return self.sketch.corpus(entry.data, pivot, trained)
        read = formats.read(entry, pivot)
        self.notes.extend(f"corpus: {note}" for note in read.notes)
        return read.corpus

    def _align(self, model: Model, label: str, seed: int, corpus: Corpus) -> tuple[str, ...]:
        """Add the jobs of a chain and return their keys, the last one being the checkpoint of the cell."""
        keys: list[str] = []
        for link in self.methods[label]:
            spec = dict(link) | {
                "start": keys[-1] if keys else "",
                "model_name": model.name,
                "model_source": model.source,
                "revision": model.revision,
                "dtype": model.dtype,
                "corpus": self._add_corpus(corpus, link["needs"]),
                "seed": seed if link["effect"] in ("training", "edit") else 0,
                "micro_batch": link["training"]["micro_batch"],
                "save_every": link["training"]["save_every"],
                "training": {**link["training"], "micro_batch": 0, "save_every": 0}
                if link["effect"] == "training"
                else None,
                "engine": engine_hash("align"),
            }
            keys.append(
                self._add("align", spec, after=keys[-1:], affinity="", label=f"{label} · {model.name} · seed {seed}")
            )
        return tuple(keys)

    def _add_corpus(self, corpus: Corpus, needs: Iterable[Need]) -> str:
        wanted = frozenset(needs)
        if wanted not in self.views:  # hashing a corpus takes a tenth of a second, and many jobs read the same view
            visible = corpora.view(corpus, wanted)
            self.views[wanted] = corpora.digest(visible)
            self.corpora[self.views[wanted]] = visible
        return self.views[wanted]

    def _task_cells(self, model: Model, method: str, seed: int, entry: TaskEntry, chain: tuple[str, ...]) -> None:
        task = self.tasks[entry.label]
        only_for = getattr(task, "only_for", None)
        if only_for and model.source.split("@")[0] != only_for:
            self.excluded.append(f"{entry.label} on {model.name}: the task is written for {only_for}")
            return
        for language in self.languages:
            if language not in self.asked[entry.label]:
                self.excluded.append(f"{entry.label} in {language}: the task has no prompts in this language")
                continue
            self._cell(model, method, seed, entry, language, chain)

    def _cell(
        self, model: Model, method: str, seed: int, entry: TaskEntry, language: Language, chain: tuple[str, ...]
    ) -> None:
        task = self.tasks[entry.label]
        prompts_key = self.asked[entry.label][language]
        place = f"{method} · {model.name} · seed {seed} · {entry.label} · {language}"
        answer = {
            "checkpoint": chain[-1],
            "prompts": prompts_key,
            **self._generation(entry, language, prompts_key),
            "engine": engine_hash("answer"),
        }
        answer_key = self._add("answer", answer, after=[chain[-1]], affinity=chain[-1], label=place)
        judge = self.judges[entry.label] | {
            "answers": answer_key,
            "prompts": prompts_key,
            "engine": engine_hash("judge"),
        }
        judge_key = self._add("judge", judge, after=[answer_key], affinity=judge["judge"], label=place)
        self.cells.append(
            Cell(
                method=method,
                model=model.name,
                seed=seed,
                task=entry.label,
                kind=task.kind,
                language=language,
                tier=task.tiers.get(language, ""),
                trained=language not in self.settings.unseen,
                prompts=len(self.prompts[prompts_key]),
                judge=judge["judge"],
                chain=chain,
                answer_key=answer_key,
                judge_key=judge_key,
            )
        )

    def _generation(self, entry: TaskEntry, language: Language, prompts_key: str) -> dict[str, Any]:
        itself = hasattr(self.tasks[entry.label], "answer")
        choices = bool(self.prompts[prompts_key][0].choices)
        if (itself or choices) and generation.backend(self.settings.generation) == "server":
            does = "asks the model itself" if itself else "compares the likelihood of choices"
            message = f"{entry.label!r} {does}, for which a server is not enough"
            raise self.shootout.error(message, ("tasks", self.settings.tasks.index(entry)))
        asking = self._asking(entry, language) if itself else {}
        return generation.spec(self.settings.generation, choices=itself or choices) | asking

    def _asking(self, entry: TaskEntry, language: Language) -> dict[str, Any]:
        """Return the part of an answer job that says how a task asks the model itself."""
        if (entry.label, language) not in self.asking:
            task: Any = self.tasks[entry.label]
            with self.shootout.at("tasks", self.settings.tasks.index(entry)):
                self.asking[entry.label, language] = {
                    "task": entry.plugin,
                    "task_fields": asdict(task),
                    "fingerprint": task.fingerprint(language),
                    "code": plugins.source_hash("task", entry.plugin),
                    "plugin_files": plugins.files("task", [entry.plugin]),
                }
        return self.asking[entry.label, language]

    def _add(self, kind: JobKind, spec: dict[str, Any], *, after: Iterable[str], affinity: str, label: str) -> str:
        what = {name: value for name, value in spec.items() if name not in PLACEMENT}
        key = f"{kind}-{digest(what)}"
        if key not in self.jobs:
            self.jobs[key] = Job(
                kind=kind, key=key, spec=spec, after=tuple(after), affinity=f"{kind}:{affinity or key}", label=label
            )
        return key


def _check(link: links.Resolved, corpus: Corpus, shape: Shape | None) -> None:
    """Refuse what the job would only find out later: unmet needs, and whatever the method itself can tell.

    Raises:
        UserError: Says what does not fit.
    """
    data = link.data
    corpora.require(corpus, data["needs"], data["method"])
    rank = data["training"]["lora_rank"] if data["effect"] == "training" else 0
    if shape and rank > shape.hidden:
        raise ConfigError(f"lora_rank = {rank} is larger than the width of the model, {shape.hidden}")
    if check := getattr(link.method, "check", None):
        check(corpora.view(corpus, data["needs"]), shape)


def _check_prompts(prompts: Sequence[Prompt], task: str, language: Language) -> None:
    """Refuse what would only break after everything was paid for.

    Raises:
        DataError: No prompts, an id that occurs twice, or choices in some prompts only.
    """
    ids = Counter(prompt.id for prompt in prompts)
    repeated = [id for id, count in ids.items() if count > 1]
    if not prompts:
        raise DataError(f"task {task!r} has no prompts in {language!r}")
    if repeated:
        raise DataError(f"task {task!r} has the id {repeated[0]!r} {ids[repeated[0]]} times in {language!r}")
    if len({bool(prompt.choices) for prompt in prompts}) > 1:
        raise DataError(f"task {task!r} has prompts with and without choices in {language!r}")

"""Utility tasks of lm-evaluation-harness, each document scored by the harness itself: `lm_eval:belebele_{language}`.

Source: EleutherAI lm-evaluation-harness (Gao et al., doi:10.5281/zenodo.12608602), MIT; each task names its data set.
`{language}` in a task's name stands for what the harness calls a language: belebele_ben_Beng for bn. Shootout:

    tasks:
      - use: lm_eval:belebele_{language}
        with: {revision: <commit of the data set>}

Every answer has a score of its own and every rate is made of these: no average of the harness is ever used. A group
such as global_mmlu_{language} stands for the documents of all its tasks. Parallel tasks share their ids across
languages. Needs `pip install 'mlbench[utility]'`. The harness runs the Python that its task files name; with
`include_path` that is the Python of the folder given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from mlbench import languages as world
from mlbench.core import Answer, Kind, Language, Prompt, Tier
from mlbench.errors import DataError, PluginError

from . import _harness
from ._ask import Document, Scored, Way, ask
from ._families import FAMILIES, Family

if TYPE_CHECKING:
    from mlbench.models import Loaded

SLOT = "{language}"


class Built(NamedTuple):
    """What the harness makes of a name in one language: its tasks by name, and the documents of all of them."""

    leaves: tuple[_harness.Leaf, ...]
    tasks: Mapping[str, Scored]
    documents: tuple[Document, ...]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LmEval:
    """A task of the harness, or a group of one language's tasks, in one or several languages.

    How an answer is written, the task file says; of the shootout's `generation` only the system prompt holds, and
    `max_new_tokens` where the file names no limit.

    Attributes:
        name: The harness's name, with `{language}` where it names the language.
        languages: Languages; those of the built-in map by default, and English where the name has no `{language}`.
        codes: Language -> what the harness calls it, where that is neither in the built-in map nor the code itself.
        parallel: Whether documents of one id are translations of each other; has to be said of a task in several
            languages that the built-in map does not know.
        id: Columns that make a document's id; none = its number, which is refused if the languages differ in length.
        cluster: Columns that make its cluster; none = its id.
        metric: Which number says right or wrong, such as acc or exact_match,flexible-extract (metric, filter).
        num_fewshot: Examples shown before each question; None = as many as the task file says.
        limit: First documents per task of the harness, None = all.
        chat_template: Whether questions are asked as user turns, as everywhere in mlbench; the harness's own default
            is plain text, which base models and most published numbers use.
        revision: Commit of the data set on the hub.
        include_path: Folder of task files of your own, in the harness's format. The Python that they name is run.
    """

    source: ClassVar[str] = "lm-evaluation-harness, https://github.com/EleutherAI/lm-evaluation-harness (MIT)"
    kind: ClassVar[Kind] = "utility"
    judge: ClassVar[str] = "lm_eval"
    argument: ClassVar[str] = "name"
    citation: ClassVar[str] = r"""@misc{eval-harness,
  author       = {Gao, Leo and Tow, Jonathan and Abbasi, Baber and Biderman, Stella and Black, Sid and DiPofi, Anthony
                  and others},
  title        = {The Language Model Evaluation Harness},
  year         = {2024},
  publisher    = {Zenodo},
  version      = {v0.4.3},
  doi          = {10.5281/zenodo.12608602}
}"""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*(\{language\})?[A-Za-z0-9_.-]*$")] = "mgsm_direct_{language}"
    languages: tuple[Language, ...] = ()
    codes: dict[Language, str] = Field(default_factory=dict)
    parallel: bool | None = None
    id: tuple[str, ...] = ()
    cluster: tuple[str, ...] = ()
    metric: str = ""
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    chat_template: bool = True
    revision: str = ""
    include_path: str = ""

    def __post_init__(self) -> None:
        """Fill in what the built-in map knows."""
        spoken = self.languages or tuple({**self._family.codes, **self.codes}) or (() if SLOT in self.name else ("en",))
        if not spoken:
            raise ValueError(f"name the languages of {self.name!r} in `languages`")
        if SLOT not in self.name and len(spoken) > 1:
            raise ValueError(f"{self.name!r} has several languages but no {SLOT}")
        parallel = self._family.parallel if self.parallel is None else self.parallel
        if parallel is None and len(spoken) > 1:
            raise ValueError(
                f"say in `parallel` whether documents of one id (column `id`, else number) of {self.name!r} are "
                "translations of each other"
            )
        # A worker may run in another folder.
        object.__setattr__(
            self, "include_path", self.include_path and str(Path(self.include_path).expanduser().resolve())
        )
        object.__setattr__(self, "languages", spoken)
        object.__setattr__(self, "parallel", bool(parallel))

    @property
    def _family(self) -> Family:
        return FAMILIES.get(self.name, Family())

    @property
    def tiers(self) -> Mapping[Language, Tier]:
        """Default resource tiers (see `mlbench.languages`)."""
        return world.tiers(self.languages)

    @property
    def licence(self) -> str:
        """Licence of the data, where the built-in map knows it."""
        return self._family.licence

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results has to know."""
        asked = "in the chat template" if self.chat_template else "as plain text, without the chat template"
        cut = (f"only the first {self.limit} documents of each task of the harness are asked",) if self.limit else ()
        return (f"asked {asked}, scored by lm-evaluation-harness {_harness.version()}", *cut)

    def prompts(self, language: Language) -> Sequence[Prompt]:
        """Return the documents of one language as prompts; `reference` is the harness's hash of the document.

        Raises:
            PluginError: The harness is not installed, or has no such task or metric.
            DataError: The data are missing, or documents of one number cannot be translations.
        """
        prompts = tuple(document.prompt for document in self._built(language).documents)
        lengths = {code: len(built.documents) for code, built in self._cache.items()}
        if self.parallel and not self._columns and len(set(lengths.values())) > 1:
            counts = ", ".join(f"{count} in {code}" for code, count in lengths.items())
            raise DataError(
                f"{self.name!r} has {counts}: documents of one number cannot be translations of each other",
                hint="name the columns that tell which question it is: with: {id: [column]}; or say parallel: false",
            )
        return prompts

    @property
    def _columns(self) -> tuple[str, ...]:
        return self.id or self._family.id

    @cached_property
    def _cache(self) -> dict[Language, Built]:
        return {}

    def _built(self, language: Language) -> Built:
        if language not in self._cache:
            name = self._called(language)
            leaves = _harness.leaves(name, self.include_path, group=SLOT in self.name)
            tasks = {leaf.name: self._scored(leaf) for leaf in leaves}
            self._cache[language] = Built(leaves, tasks, tuple(self._documents(name, language, tasks)))
        return self._cache[language]

    def _called(self, language: Language) -> str:
        return self.name.replace(SLOT, self.codes.get(language) or self._family.codes.get(language, language))

    def _scored(self, leaf: _harness.Leaf) -> Scored:
        """Return the harness's task object, and the names of the metric and the filter whose score is read."""
        task = _harness.build(leaf, num_fewshot=self.num_fewshot, revision=self.revision)
        metrics, sieves = _harness.scores(task)
        metric, _, sieve = (self.metric or self._family.metric).partition(",")
        metric = metric or next((name for name in ("acc", "exact_match") if name in metrics), "")
        sieve = sieve or (sieves[0] if len(sieves) == 1 else "")
        if metric not in metrics or sieve not in sieves:
            allowed = [f"{name},{each}" for name in metrics for each in sieves]
            raise PluginError(f"say in `metric` which score of {leaf.name!r} says right or wrong", allowed=allowed)
        return Scored(task, metric, sieve)

    def _documents(self, name: str, language: Language, tasks: Mapping[str, Scored]) -> Iterator[Document]:
        own = "" if self.parallel else f"{language}/"
        repeats: Counter[str] = Counter()
        for leaf, scored in tasks.items():
            part = leaf.removeprefix(name).strip("_")
            for number, doc in enumerate(islice(scored.task.eval_docs, self.limit)):
                id = _joined(doc, self._columns) or "/".join(word for word in (part, str(number)) if word)
                repeats[id] += 1
                # Belebele's data set lacks the column that tells two passages of one link apart; their order does.
                told = f"{id}~{repeats[id]}" if repeats[id] > 1 else id
                cluster = _joined(doc, self.cluster or self._family.cluster) or told
                text, choices = _harness.wording(scored.task, doc)
                prompt = Prompt(
                    id=f"{own}{told}",
                    cluster=f"{own}{cluster}",
                    language=language,
                    text=text,
                    reference=_harness.digest(dict(doc)),
                    choices=choices,
                )
                yield Document(prompt, leaf, number)

    def fingerprint(self, language: Language) -> str:
        """Return the hash of what the answers in a language depend on besides prompts, model and engine."""
        built = self._built(language)
        parts = [
            [_harness.fingerprint(leaf, scored.task), scored.metric, scored.sieve]
            for leaf, scored in zip(built.leaves, built.tasks.values(), strict=True)
        ]
        return _harness.digest([parts, self.num_fewshot, self.chat_template])

    def answer(
        self, loaded: Loaded, prompts: Sequence[Prompt], *, max_new_tokens: int, batch_size: int
    ) -> list[Answer]:
        """Return the model's answers to prompts of one language, each with the score that the harness gives it.

        Args:
            loaded: The checkpoint, adapters merged.
            prompts: Some of `prompts`.
            max_new_tokens: Longest answer, where the task file names none.
            batch_size: Questions asked side by side.

        Raises:
            DataError: A prompt is none of the task's documents as they are now, or does not fit into the model.
        """
        built = self._built(prompts[0].language)
        known = {document.prompt: document for document in built.documents}
        if changed := [prompt.id for prompt in prompts if prompt not in known]:
            raise DataError(f"the data of {self.name!r} changed since the plan was made: document {changed[0]!r}")
        way = Way(self.chat_template, max_new_tokens, batch_size)
        return ask(loaded, built.tasks, [known[prompt] for prompt in prompts], way)


def _joined(doc: Mapping[str, Any], columns: Sequence[str]) -> str:
    if missing := [column for column in columns if column not in doc]:
        raise DataError(f"the documents have no column {missing[0]!r}", allowed=list(doc))
    return "#".join(str(doc[column]) for column in columns)


plugin = LmEval

"""Fill the missing languages of a corpus or of a prompt file by machine translation, and say which rows to distrust.

    source: pairs.jsonl                   # a JSONL corpus, or any table with `texts: {en: question, sw: swahili}`
    languages: [sw, bn]
    engine: {kind: nllb, model: facebook/nllb-200-distilled-600M, revision: <commit>}
    out: pairs-translated.jsonl

writes the corpus with every missing text filled; `<out>.json`, which names model, revision and hashes and gives each
translation its flags; and `<out>.memory.jsonl`, all that was translated so far: a run that was killed goes on from it,
and one that changes nothing translates nothing. Existing texts are never touched, and no text is ever printed. What the
flags mean says `mlbench.doubts`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from mlbench import corpus as corpora
from mlbench import mt
from mlbench.core import Corpus, Example, Language
from mlbench.data.files import read as read_table
from mlbench.doubts import FEW, FLAGS, FLOOR, border, chrf, flags, outlier
from mlbench.errors import DataError
from mlbench.shootout import Entry, Located
from mlbench.yamlfile import Document, validate
from mlbench.yamlfile import read as read_yaml

Progress = Callable[[str, int, int], None]
Column = Literal["prompt", "chosen", "rejected"]


class Translation(Entry):
    """What is to be translated.

    texts: language -> column, for a table with one column per language; `id` names its column of ids.
    columns: which texts of a corpus; one that the source lacks is left out.
    flagged: keep them, or drop them from `out`; either way they are counted and listed.
    """

    source: Annotated[str, Field(min_length=1)]
    pivot: Language = "en"
    languages: Annotated[list[Language], Field(min_length=1)]
    engine: mt.EngineEntry
    texts: dict[Language, str] = Field(default={})
    id: str = ""
    columns: Annotated[list[Column], Field(min_length=1)] = Field(default=["prompt", "chosen", "rejected"])
    back_translate: bool = True
    flagged: Literal["keep", "drop"] = "keep"
    out: Annotated[str, Field(min_length=1)]


class Gap(NamedTuple):
    """A text that a row lacks, and what it is translated from."""

    id: str
    language: Language
    column: Column
    source: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a translation leaves behind.

    Attributes:
        out: The filled corpus.
        sidecar: Where everything came from, and the flags of each translation.
        translated: Language -> texts that were missing; those without words stay missing.
        flags: Language -> flag -> how many.
        asked: Texts the engine translated now; the others were remembered.
    """

    out: Path
    sidecar: Path
    translated: Mapping[Language, int]
    flags: Mapping[Language, Mapping[str, int]]
    asked: int


def run(path: Path, overrides: Sequence[str], progress: Progress) -> Outcome:
    """Return what a translation leaves behind.

    Raises:
        UserError: Something in the file or in the source is wrong; nothing was translated.
    """
    document = read_yaml(path, overrides)
    settings = validate(Translation, document.data, document)
    _check(settings, document)
    with Located(document, ("engine",)):
        engine = mt.engine(settings.engine)
    with Located(document, ("languages",)):
        engine.check([settings.pivot, *settings.languages])
    with Located(document, ("source",)):
        found = _read(settings)
    gaps = missing(found, settings.languages, settings.columns)
    memory = Memory(Path(f"{settings.out}.memory.jsonl"), engine, settings.engine.batch_size)
    for language in settings.languages:
        mine = [gap.source for gap in gaps if gap.language == language]
        memory.fill(mine, settings.pivot, language, progress)
        if settings.back_translate:
            forth = [memory.get(text, settings.pivot, language).text for text in mine]
            memory.fill([text for text in forth if text], language, settings.pivot, progress)
    return _write(settings, found, graded(settings, gaps, memory), memory)


def _check(settings: Translation, document: Document) -> None:
    with Located(document, ("languages",)):
        repeated = [code for code, count in Counter(settings.languages).items() if count > 1]
        if settings.pivot in settings.languages or repeated:
            code = (repeated or [settings.pivot])[0]
            raise DataError(f"{code!r} is {'there twice' if repeated else 'the pivot, which is translated from'}")
    with Located(document, ("out",)):
        out = Path(settings.out)
        if out.resolve() == Path(settings.source).resolve():
            raise DataError("is the source, which is never written to")
        if not out.parent.is_dir():
            raise DataError(f"the folder {str(out.parent)!r} does not exist")
    with Located(document, ("texts",)):
        if settings.texts and settings.pivot not in settings.texts:
            raise DataError(f"no column for the pivot {settings.pivot!r}")
    with Located(document, ("id",)):
        if settings.id and not settings.texts:
            raise DataError("`id` goes with `texts`; a JSONL corpus has a column `id`")


def _read(settings: Translation) -> Corpus:
    if not settings.texts:
        return corpora.read_jsonl(Path(settings.source).expanduser(), settings.pivot)
    path = Path(settings.source).expanduser()
    if not path.is_file():
        raise DataError(f"file {str(path)!r} does not exist (seen from {Path.cwd()})")
    table = read_table(path)
    table.require(*(column for column in (settings.id, *settings.texts.values()) if column))
    ids = table.texts(settings.id) if settings.id else [str(at) for at in range(len(table.rows))]
    if len(set(ids)) < len(ids) or not all(ids):
        raise DataError(f"an id in column {settings.id!r} is empty or there twice")
    rows = [
        Example(id=id, cluster=id, language=language, prompt=text, harmful=True)
        for language, column in settings.texts.items()
        for id, text in zip(ids, table.texts(column), strict=True)
        if text.strip()
    ]
    return Corpus(pivot=settings.pivot, languages=tuple(settings.texts), examples=tuple(rows))


def missing(found: Corpus, wanted: Sequence[Language], columns: Sequence[Column]) -> list[Gap]:
    """Return the texts that the pivot's rows have and their translations lack, language by language."""
    existing = {(row.id, row.language): row for row in found.examples}
    return [
        Gap(row.id, language, column, text)
        for language in wanted
        for row in found.rows(found.pivot)
        for column in columns
        if (text := getattr(row, column)) and text.strip()
        # A row that is not there lacks its prompt; answers alone would have nothing to stand beside.
        if not getattr(existing.get((row.id, language)), column, None)
        and ("prompt" in columns or (row.id, language) in existing)
    ]


class Memory:
    """What an engine has translated, in a file that only grows: a killed run loses one batch at most."""

    def __init__(self, path: Path, engine: mt.Engine, batch_size: int) -> None:
        self.path = path
        self.engine = engine
        self.batch_size = batch_size
        self.asked = 0
        self._identity = json.dumps(engine.about(), sort_keys=True)
        self._known = self._load()

    def _load(self) -> dict[str, mt.Said]:
        if not self.path.is_file():
            return {}
        # Not splitlines(): a text may hold other line separators. What follows the last line break was cut off.
        whole, _, rest = self.path.read_bytes().rpartition(b"\n")
        if rest:
            os.truncate(self.path, len(whole) + 1 if whole else 0)
        rows = [json.loads(line) for line in whole.decode("utf-8").split("\n") if line]
        return {row["key"]: mt.Said(row["text"], row["truncated"]) for row in rows}

    def _key(self, text: str, source: Language, target: Language) -> str:
        return _hash(json.dumps([self._identity, source, target, text], ensure_ascii=False))

    def get(self, text: str, source: Language, target: Language) -> mt.Said:
        """Return a translation that `fill` has seen to."""
        return self._known[self._key(text, source, target)]

    def fill(self, texts: Iterable[str], source: Language, target: Language, progress: Progress) -> None:
        """Translate what is not known yet, batch by batch, each of them written before the next one starts."""
        keys = {self._key(text, source, target): text for text in texts}
        todo = [(key, text) for key, text in keys.items() if key not in self._known]
        for at in range(0, len(todo), self.batch_size):
            part = todo[at : at + self.batch_size]
            said = self.engine.translate([text for _, text in part], source, target)
            self._append(dict(zip((key for key, _ in part), said, strict=True)), source, target)
            self.asked += len(part)
            progress(f"{source} to {target}", at + len(part), len(todo))

    def _append(self, said: Mapping[str, mt.Said], source: Language, target: Language) -> None:
        lines = [
            json.dumps({"key": key, "from": source, "to": target, **each._asdict()}, ensure_ascii=False)
            for key, each in said.items()
        ]
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        self._known |= said


class Graded(NamedTuple):
    """A filled gap.

    Attributes:
        score: chrF between the source and the back-translation, None where there is none.
    """

    gap: Gap
    text: str
    score: float | None
    flags: tuple[str, ...]


def graded(settings: Translation, gaps: Sequence[Gap], memory: Memory) -> list[Graded]:
    """Return the gaps with their translations, scores and flags."""
    pivot = settings.pivot
    said = [memory.get(gap.source, pivot, gap.language) for gap in gaps]
    scores = [
        chrf(memory.get(each.text, gap.language, pivot).text, gap.source)
        if settings.back_translate and each.text
        else None
        for gap, each in zip(gaps, said, strict=True)
    ]
    borders = {
        language: border([score for gap, score in zip(gaps, scores, strict=True)
                          if gap.language == language and score is not None])
        for language in settings.languages
    }  # fmt: skip
    return [
        Graded(
            gap, each.text, score, flags(each, gap.language, gap.source, pivot) + outlier(score, borders[gap.language])
        )
        for gap, each, score in zip(gaps, said, scores, strict=True)
    ]


def filled(found: Corpus, rows: Sequence[Graded], *, drop: bool) -> Corpus:
    """Return the corpus with its gaps filled, as far as there are words; new rows follow the existing ones."""
    made = {(row.id, row.language): row for row in found.examples}
    first = {row.id: row for row in found.rows(found.pivot)}
    # A prompt comes before its answers, which have no row to stand in without it.
    for gap, text, _, raised in sorted(rows, key=lambda row: row.gap.column != "prompt"):
        place = (gap.id, gap.language)
        if not text.strip() or (drop and raised):
            continue
        if place in made:
            made[place] = Example(**asdict(made[place]) | {gap.column: text})
        elif gap.column == "prompt":
            made[place] = replace(first[gap.id], language=gap.language, prompt=text, chosen=None, rejected=None)
    wanted = tuple(dict.fromkeys(row.language for row in made.values()))
    return replace(found, examples=tuple(made.values()), languages=wanted)


def _write(settings: Translation, found: Corpus, rows: Sequence[Graded], memory: Memory) -> Outcome:
    out, sidecar = Path(settings.out), Path(f"{settings.out}.json")
    engine = memory.engine.about()
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    corpora.write_jsonl(filled(found, rows, drop=settings.flagged == "drop"), temporary)
    temporary.rename(out)
    by_language = {language: [row for row in rows if row.gap.language == language] for language in settings.languages}
    raised = {
        language: dict(Counter(flag for row in mine for flag in row.flags)) for language, mine in by_language.items()
    }
    translated = {language: len(mine) for language, mine in by_language.items()}
    about = {
        "source": settings.source,
        "source_sha256": _hash(Path(settings.source).expanduser().read_bytes()),
        "out_sha256": _hash(out.read_bytes()),
        "pivot": settings.pivot,
        "engine": engine,
        "outlier": f"chrF below {FLOOR:g}, or below Q1 - 1.5 (Q3 - Q1) of the language with {FEW} scores or more",
        "flagged": settings.flagged,
        "translated": translated,
        "flags": raised,
        "rows": [_about(row, engine) for row in rows],
    }
    temporary.write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
    temporary.rename(sidecar)
    return Outcome(out=out, sidecar=sidecar, translated=translated, flags=raised, asked=memory.asked)


def _about(row: Graded, engine: Mapping[str, str | int]) -> dict[str, Any]:
    """Return a translation's provenance: hashes, no words."""
    return {
        "id": row.gap.id,
        "language": row.gap.language,
        "column": row.gap.column,
        "model": engine["model"],
        "revision": engine["revision"],
        "source_sha256": _hash(row.gap.source),
        "sha256": _hash(row.text),
        "chrf": None if row.score is None else round(row.score, 2),
        "flags": list(row.flags),
    }


def _hash(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def summary(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as plain data."""
    return {**asdict(outcome), "out": str(outcome.out), "sidecar": str(outcome.sidecar)}


def words(outcome: Outcome) -> str:
    """Return an outcome for a person: how many texts, how many of them flagged, and where they are."""
    lines = []
    for language, count in outcome.translated.items():
        raised = outcome.flags[language]
        flagged = ", ".join(f"{raised[name]} {name}" for name in FLAGS if raised.get(name))
        lines.append(f"{language}: {count} texts translated, flagged: {flagged or 'none'}")
    return "\n".join([
        *lines,
        f"{outcome.asked} translations made now, back-translations included; the others were there",
        f"written: {outcome.out}",
        f"hashes, scores and flags: {outcome.sidecar}",
    ])  # fmt: skip

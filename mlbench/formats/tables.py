"""Corpora that are plain tables: MLC, PKU-SafeRLHF and any other whose columns are named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from mlbench import languages
from mlbench.core import Example, Language
from mlbench.data import Table
from mlbench.errors import DataError
from mlbench.formats.entry import CorpusEntry, Read, clusters, made


def pku(table: Table, entry: CorpusEntry, pivot: Language) -> Read:
    """Return the pairs of PKU-SafeRLHF; each row is a source prompt of its own."""
    needed = ("prompt", "response_0", "response_1", "safer_response_id")
    safe = ("is_response_0_safe", "is_response_1_safe")
    table.require(*needed, *(safe if entry.contrast else ()))
    columns = {name: table.texts(name) for name in needed}
    kept: dict[str, tuple[str, str]] = {}
    for at, row in enumerate(table.rows):
        if columns["safer_response_id"][at] not in ("0", "1"):
            raise DataError("`safer_response_id` is neither 0 nor 1", where=table.where(at))
        better = int(columns["safer_response_id"][at])
        flags = (row.get(safe[better]), row.get(safe[1 - better]))
        if entry.contrast and not all(isinstance(flag, bool) for flag in flags):
            raise DataError(f"`{safe[0]}` or `{safe[1]}` is neither true nor false", where=table.where(at))
        if not entry.contrast or flags == (True, False):
            kept[str(at)] = (columns[f"response_{better}"][at], columns[f"response_{1 - better}"][at])
    group = clusters({id: columns["prompt"][int(id)] for id in kept})
    rows = [
        Example(
            id=f"pku-{id}",
            cluster=f"pku-{group[id]}",
            language="en",
            prompt=columns["prompt"][int(id)],
            harmful=True,
            chosen=chosen or None,
            rejected=rejected or None,
        )
        for id, (chosen, rejected) in kept.items()
        if columns["prompt"][int(id)].strip()
    ]
    dropped = len(table.rows) - len(kept)
    notes = [f"{dropped} of {len(table.rows)} pairs are not of a safe and an unsafe answer and were left out"]
    return made(rows, pivot, notes if dropped else ())


def mlc(table: Table, entry: CorpusEntry, pivot: Language) -> Read:
    """Return the prompts of a file of MLC: English ones with answers, and their translations without."""
    found = [name for name in table.columns if name.startswith("prompt_")]
    columns = {languages.code(name.removeprefix("prompt_"), table.name): name for name in found}
    named = entry.model_copy(update={"columns": {"en": "prompt"} | columns, "chosen": "chosen", "rejected": "rejected"})
    return _wide(table, named, pivot, "mlc", answers="en")


def _wide(table: Table, entry: CorpusEntry, pivot: Language, name: str, *, answers: Language) -> Read:
    """Return a table with one column per language; the answers are in one of the languages."""
    columns = entry.columns
    named = (entry.id, entry.cluster, entry.harmful, entry.chosen, entry.rejected)
    table.require(*columns.values(), *(column for column in named if column))
    ids = _unique(table, entry.id)
    texts = {code: table.texts(column) for code, column in columns.items()}
    source = answers if answers in texts else next(iter(texts))
    group = clusters(dict(zip(ids, texts[source], strict=True)))
    if entry.cluster:
        group = dict(zip(ids, table.texts(entry.cluster), strict=True))
    chosen, rejected = _optional(table, entry.chosen), _optional(table, entry.rejected)
    rows = [
        Example(
            id=f"{name}-{id}",
            cluster=f"{name}-{group[id] or id}",
            language=code,
            prompt=texts[code][at],
            harmful=_harmful(table, entry.harmful, at),
            chosen=chosen[at] if code == answers else None,
            rejected=rejected[at] if code == answers else None,
        )
        for at, id in enumerate(ids)
        for code in columns
        if texts[code][at].strip()
    ]
    notes = list(_prompt_notes(texts, source))
    lacking = sum(not (one and other) for one, other in zip(chosen, rejected, strict=True))
    if entry.chosen and entry.rejected and lacking:
        notes.append(f"{lacking} rows lack the chosen or the rejected answer")
    return made(rows, pivot, notes)


def _unique(table: Table, column: str) -> list[str]:
    if not column:
        return [str(at) for at in range(len(table.rows))]
    ids = table.texts(column)
    first: dict[str, int] = {}
    for at, id in enumerate(ids):
        if first.setdefault(id, at) != at or not id.strip():
            raise DataError(f"the id in column {column!r} is empty or occurs above already", where=table.where(at))
    return ids


def _optional(table: Table, column: str) -> list[str | None]:
    return [text or None for text in table.texts(column)] if column else [None] * len(table.rows)


def _prompt_notes(texts: Mapping[Language, Sequence[str]], source: Language) -> Iterator[str]:
    for code, found in texts.items():
        empty = sum(not text.strip() for text in found)
        if empty:
            yield f"{empty} prompts in {code} are empty and were left out"
        wrong = sum(not languages.in_script(text, code) for text in found)
        if wrong:
            yield f"{wrong} prompts in {code} are not in a script of {languages.name(code)}"
        scripts = Counter(languages.script_of(text) for text in found if text.strip())
        if code == "ku" and scripts["Arab"] and scripts["Latn"]:
            yield f"ku mixes scripts: {scripts['Arab']} Arab, {scripts['Latn']} Latn"
        if code != source and source in texts:
            same = sum(one.strip() == other.strip() != "" for one, other in zip(found, texts[source], strict=True))
            if same:
                yield f"{same} prompts in {code} are the {source} text, not a translation"


def _harmful(table: Table, column: str, at: int) -> bool:
    if not column:
        return True
    value = str(table.rows[at].get(column)).strip().lower()
    if value not in ("true", "1", "yes", "harmful", "false", "0", "no", "harmless", "benign"):
        raise DataError(f"column {column!r} says neither true nor false", where=table.where(at))
    return value in ("true", "1", "yes", "harmful")


def custom(table: Table, entry: CorpusEntry, pivot: Language) -> Read:
    """Return the rows of any table whose columns the entry names."""
    if entry.columns:
        for code in entry.columns:
            languages.code(code, table.name)
        return _wide(table, entry, pivot, "custom", answers=pivot)
    named = [column for column in (entry.cluster, entry.harmful, entry.chosen, entry.rejected) if column]
    table.require(entry.text, entry.language, entry.id, *named)
    prompts, ids, codes = (table.texts(column) for column in (entry.text, entry.id, entry.language))
    group = table.texts(entry.cluster) if entry.cluster else ids
    chosen, rejected = _optional(table, entry.chosen), _optional(table, entry.rejected)
    rows: dict[tuple[str, Language], Example] = {}
    for at, id in enumerate(ids):
        code = languages.code(codes[at], str(table.where(at)))
        if not prompts[at].strip() or not id.strip():
            raise DataError("the prompt or its id is empty", where=table.where(at))
        if (id, code) in rows:
            raise DataError(f"the id occurs in {code!r} already", where=table.where(at))
        rows[id, code] = Example(
            id=f"custom-{id}",
            cluster=f"custom-{group[at] or id}",
            language=code,
            prompt=prompts[at],
            harmful=_harmful(table, entry.harmful, at),
            chosen=chosen[at],
            rejected=rejected[at],
        )
    return made(rows.values(), pivot, ())

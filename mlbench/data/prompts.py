"""Tables as prompts: one id for all translations of a source prompt, one cluster for near-duplicates, notes on defects.

A note is a sentence with a count. It says what a reader of the results has to know, and changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mlbench import languages, similarity
from mlbench.core import Language, Prompt
from mlbench.data.files import Table
from mlbench.errors import DataError

Texts = Mapping[Language, Mapping[str, str]]
"""Language -> id of the source prompt -> text."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The prompts of a task by language, and the notes on them."""

    prompts: Mapping[Language, tuple[Prompt, ...]]
    notes: tuple[str, ...] = field(default=())


def wide(
    table: Table,
    name: str,
    columns: Mapping[Language, str],
    *,
    id: str = "",
    cluster: str = "",
    reference: str = "",
    pivot: Language = "en",
) -> Loaded:
    """Return the prompts of a table with one column per language.

    Args:
        name: Prefix of ids and clusters.
        columns: Language -> column.
        id: Column of ids; "" = the row's number, from 0.
        cluster: Column of clusters; "" = near-duplicates in the pivot's texts share one.
        reference: Column of what the judge needs to know.
        pivot: Language whose texts tell near-duplicates.

    Raises:
        DataError: A column is missing, an id occurs twice, a cell is empty, or a language is unknown.
    """
    for code in columns:
        languages.code(code, table.name)
    table.require(*(column for column in (id, *columns.values(), cluster, reference) if column))
    if not table.rows:
        raise DataError(f"{table.name} has no rows")
    ids = _ids(table, id)
    texts: dict[Language, dict[str, str]] = {}
    for code, column in columns.items():
        texts[code] = dict(zip(ids, table.texts(column), strict=True))
        for at, text in enumerate(texts[code].values()):
            if not text.strip():
                raise DataError(f"no text in column {column!r}", where=table.where(at))
    return parallel(
        name,
        texts,
        pivot=pivot,
        clusters=dict(zip(ids, table.texts(cluster), strict=True)) if cluster else None,
        references=dict(zip(ids, table.texts(reference), strict=True)) if reference else {},
    )


def _ids(table: Table, column: str) -> list[str]:
    if not column:
        return [str(at) for at in range(len(table.rows))]
    ids = table.texts(column)
    first: dict[str, int] = {}
    for at, id in enumerate(ids):
        if not id.strip():
            raise DataError(f"no id in column {column!r}", where=table.where(at))
        if first.setdefault(id, at) != at:
            line = table.where(first[id]).line
            raise DataError(f"the id in column {column!r} is that of row {line} again", where=table.where(at))
    return ids


def long(
    table: Table, name: str, *, text: str, language: str, id: str = "", pivot: Language = "en", complete: bool = True
) -> Loaded:
    """Return the prompts of a table with one row per prompt and language.

    Args:
        text: Column of the prompts.
        language: Column of language codes or English names.
        id: Column of ids that translations share; "" = no row is a translation of another.
        complete: Whether every id must occur in every language.

    Raises:
        DataError: A column is missing, a language unknown, a cell empty, or an id unpaired where all must be paired.
    """
    table.require(*(column for column in (text, language, id) if column))
    codes = [languages.code(found, str(table.where(at))) for at, found in enumerate(table.texts(language))]
    ids = table.texts(id) if id else [str(at) for at in range(len(table.rows))]
    texts: dict[Language, dict[str, str]] = {}
    for at, (code, key, prompt) in enumerate(zip(codes, ids, table.texts(text), strict=True)):
        if not prompt.strip() or not key.strip():
            raise DataError(f"no text in column {(id if prompt.strip() else text)!r}", where=table.where(at))
        if key in texts.setdefault(code, {}):
            raise DataError(f"the id occurs in {code!r} already", where=table.where(at))
        texts[code][key] = prompt
    if not texts:
        raise DataError(f"{table.name} has no rows")
    if not id:
        return unpaired(name, {code: list(found.values()) for code, found in texts.items()})
    if complete:
        same_rows(table.name, {code: list(found) for code, found in texts.items()})
    return parallel(name, texts, pivot=pivot if pivot in texts else next(iter(texts)))


def same_rows(name: str, ids: Mapping[Language, Sequence[str]]) -> None:
    """Refuse languages that do not have the same prompts.

    Raises:
        DataError: Names two languages and how many rows each has.
    """
    first = next(iter(ids))
    for code, found in ids.items():
        if set(found) != set(ids[first]):
            apart = len(set(found) ^ set(ids[first]))
            raise DataError(
                f"{name}: {len(found)} prompts in {code!r} but {len(ids[first])} in {first!r}, "
                f"{apart} of them in one of the two only"
            )


def parallel(
    name: str,
    texts: Texts,
    *,
    pivot: Language,
    clusters: Mapping[str, str] | None = None,
    references: Mapping[str, str] | None = None,
) -> Loaded:
    """Return prompts whose translations share their ids; a missing translation is a missing id.

    Args:
        name: Prefix of ids and clusters.
        pivot: Language whose texts tell near-duplicates.
        clusters: Id -> cluster; None = by near-duplicates.
    """
    if clusters is None:
        # A prompt without a text in the pivot goes by its first text in another language.
        sources = dict(texts[pivot])
        for found in texts.values():
            sources |= {id: text for id, text in found.items() if id not in sources}
        order = list(sources)
        first = similarity.groups(list(sources.values()))
        clusters = {id: order[at] for id, at in zip(order, first, strict=True)}
    prompts = {
        code: tuple(
            Prompt(
                id=f"{name}-{id}",
                cluster=f"{name}-{clusters[id] or id}",
                language=code,
                text=text,
                reference=(references or {}).get(id, ""),
            )
            for id, text in found.items()
        )
        for code, found in texts.items()
    }
    return Loaded(prompts=prompts, notes=(*_repeats(clusters), *_defects(texts, pivot)))


def unpaired(name: str, texts: Mapping[Language, Sequence[str]]) -> Loaded:
    """Return prompts that are no translations of each other; ids name their language."""
    prompts: dict[Language, tuple[Prompt, ...]] = {}
    notes: list[str] = []
    for code, found in texts.items():
        alone = parallel(f"{name}-{code}", {code: {str(at): text for at, text in enumerate(found)}}, pivot=code)
        prompts |= alone.prompts
        notes += [note if code in note.split() else f"{code}: {note}" for note in alone.notes]
    return Loaded(prompts=prompts, notes=tuple(notes))


def _repeats(clusters: Mapping[str, str]) -> Iterator[str]:
    sizes = Counter(clusters.values())
    alike = sum(size for size in sizes.values() if size > 1)
    if alike:
        yield (
            f"{alike} of {len(clusters)} source prompts share a cluster with another one, mostly near-duplicates: "
            f"{len(sizes)} clusters, the largest of {max(sizes.values())}"
        )


def _defects(texts: Texts, pivot: Language) -> Iterator[str]:
    for code, found in texts.items():
        wrong = sum(not languages.in_script(text, code) for text in found.values())
        if wrong:
            yield f"{wrong} of {len(found)} prompts in {code} are not in a script of {languages.name(code)}"
        scripts = Counter(languages.script_of(text) for text in found.values() if languages.in_script(text, code))
        expected = {script: scripts[script] for script in languages.SCRIPTS.get(code, ()) if scripts[script]}
        if len(expected) > 1 and code != "ja":  # Japanese without kana is still Japanese
            yield f"{code} mixes scripts: {', '.join(f'{count} {script}' for script, count in expected.items())}"
        same = code != pivot and sum(text.strip() == texts[pivot].get(id, "").strip() for id, text in found.items())
        if same:
            yield f"{same} of {len(found)} prompts in {code} are the {pivot} text, not a translation"

"""Tables out of CSV, TSV, JSON, JSONL, Parquet and Excel files, and the hashes that tell their versions apart.

Errors name files, columns and rows, never what a cell holds: prompts may be harmful.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from mlbench.errors import AbsentError, DataError, Where, nearest

Cells = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows with named columns.

    Attributes:
        name: What errors call it: the file's path or the hub id.
        first: Number of the first row, as errors count: 2 below a header.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[Cells, ...]
    first: int = 1

    def where(self, row: int) -> Where:
        """Return the place of a row counted from 0."""
        return Where(file=self.name, line=row + self.first)

    def require(self, *columns: str, field: str = "") -> None:
        """Refuse a table without these columns; `field` is the task's field that could name another.

        Raises:
            DataError: Names the missing column, the columns there are and the nearest of them.
        """
        shown = [name if len(name) <= 40 else f"<{len(name)} characters>" for name in self.columns]
        for column in columns:
            if column not in self.columns:
                hint = nearest(column, shown) or (f"name the column in `{field}`" if field else "")
                raise DataError(f"{self.name} has no column {column!r}", allowed=shown, hint=hint)

    def texts(self, column: str) -> list[str]:
        """Return a column as texts, empty where a cell is."""
        return [text_of(row.get(column), self.where(at)) for at, row in enumerate(self.rows)]

    def select(self, wanted: Mapping[str, str]) -> Table:
        """Return the rows in which each named column holds the given text."""
        self.require(*wanted)
        columns = {name: self.texts(name) for name in wanted}
        keep = [all(columns[name][at] == value for name, value in wanted.items()) for at in range(len(self.rows))]
        rows = tuple(row for row, kept in zip(self.rows, keep, strict=True) if kept)
        if not rows:
            conditions = ", ".join(f"{name} = {value!r}" for name, value in wanted.items())
            raise DataError(f"{self.name} has no row with {conditions}")
        return Table(name=self.name, columns=self.columns, rows=rows, first=self.first)


def text_of(value: object, where: Where) -> str:
    """Return a cell as text: text, a number, or a conversation of one turn ([{"from": ..., "value": text}]).

    Raises:
        DataError: The cell holds something else, such as several turns.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict) and "value" in value:
        value = value["value"]
    if value is None or value != value:  # a missing number is not equal to itself
        return ""
    if isinstance(value, (str, int, float)):
        return str(value)
    raise DataError(f"a cell is neither text nor a conversation of one turn: {type(value).__name__}", where=where)


def locate(data: str, task: str, example: str, *, folder: bool = False) -> Path:
    """Return the path that a task's field `data` names.

    Raises:
        DataError: Nothing is there, or a file where a folder is expected, or the other way round.
    """
    path = Path(data).expanduser()
    hint = f"give its path: with: {{data: {example}}}"
    if not path.exists():
        raise AbsentError(f"{task} {'folder' if folder else 'file'} {data!r} does not exist (seen from {Path.cwd()})",
                          hint=hint)  # fmt: skip
    if path.is_dir() != folder:
        raise DataError(f"{data!r} is a {'file, not a folder' if folder else 'folder, not a file'}", hint=hint)
    return path


def digest(paths: Sequence[Path], root: Path) -> str:
    """Return the SHA-256 of one file, or of the lines "<sha256>  <path below root>" of several, sorted by path."""
    hashes = {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    return hashlib.sha256("".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes)).encode()).hexdigest()


def verify(paths: Sequence[Path], root: Path, *, known: Iterable[str], given: str) -> None:
    """Refuse files whose content is none of the known versions, nor the one that the user gave.

    Raises:
        DataError: Says what was expected, what was found, and how to accept it.
    """
    expected = (given.lower(),) if given else tuple(known)
    found = digest(paths, root)
    if expected and found not in expected:
        name = str(paths[0]) if len(paths) == 1 else f"{root} ({len(paths)} files)"
        raise DataError(
            f"{name} is another version than expected: sha256 {found}, expected {' or '.join(expected)}",
            hint=f"to use this version: with: {{sha256: {found}}}",
        )


def read(path: Path) -> Table:
    """Return the table in a file, by its suffix.

    Raises:
        DataError: The suffix is unknown, or the file is not what it says or not UTF-8.
    """
    readers: dict[str, Callable[[Path], Table]] = {
        ".csv": _csv,
        ".tsv": _csv,
        ".json": _json,
        ".jsonl": _jsonl,
        ".parquet": _parquet,
    }
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: unknown kind of file {path.suffix!r}", allowed=readers)
    return readers[path.suffix.lower()](path)


def utf8(path: Path) -> str:
    """Return a file's text, without a byte order mark.

    Raises:
        DataError: The file is not UTF-8; says at which byte.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: byte {error.start}") from error


def _csv(path: Path) -> Table:
    reader = csv.DictReader(
        io.StringIO(utf8(path), newline=""), delimiter="\t" if path.suffix.lower() == ".tsv" else ","
    )
    try:
        rows = tuple(reader)
    except csv.Error as error:
        raise DataError(f"{path} is not CSV: {error}") from error
    # A row with too many cells keeps them under the key None.
    cells = tuple({name: cell for name, cell in row.items() if name is not None} for row in rows)
    return Table(name=str(path), columns=tuple(reader.fieldnames or ()), rows=cells, first=2)


def _json(path: Path) -> Table:
    try:
        rows = json.loads(utf8(path))
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error.msg}", where=Where(file=str(path), line=error.lineno)) from error
    if not isinstance(rows, list):
        raise DataError(f"{path} is not a JSON list of objects")
    return _table(path, rows)


def _jsonl(path: Path) -> Table:
    rows = []
    # Not splitlines(): JSON strings may hold other line separators, such as U+2028.
    for number, line in enumerate(utf8(path).split("\n"), start=1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError as error:
            raise DataError(f"not JSON: {error.msg}", where=Where(file=str(path), line=number)) from error
    return _table(path, rows)


def _parquet(path: Path) -> Table:
    import pyarrow
    from pyarrow import parquet

    try:
        return _table(path, parquet.read_table(path).to_pylist())
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path} is not Parquet") from error


def _table(path: Path, rows: Sequence[Any]) -> Table:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError("not a JSON object", where=Where(file=str(path), line=number))
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    return Table(name=str(path), columns=columns, rows=tuple(rows))


def column_of(path: Path) -> list[str]:
    """Return the first column of a CSV or Excel file that has no header; an empty row stays, as an empty text.

    Raises:
        DataError: The file is not UTF-8, or not CSV or Excel.
    """
    if path.suffix.lower() == ".xlsx":
        return _excel(path)
    try:
        return [row[0] if row else "" for row in csv.reader(io.StringIO(utf8(path), newline=""))]
    except csv.Error as error:
        raise DataError(f"{path} is not CSV: {error}") from error


def _excel(path: Path) -> list[str]:
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        # From bytes: a read-only workbook keeps its file open.
        book = load_workbook(io.BytesIO(path.read_bytes()), read_only=True)
    except (InvalidFileException, BadZipFile, KeyError, OSError, ValueError) as error:
        raise DataError(f"{path} is not an Excel file") from error
    rows = book.worksheets[0].iter_rows(values_only=True)
    return ["" if not row or row[0] is None else str(row[0]) for row in rows]

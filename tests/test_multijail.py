"""MultiJail: the real file where it is on this machine, and every way in which a file can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlbench import plugins
from mlbench.core import Task
from mlbench.errors import DataError

REAL = Path(__file__).parents[2] / "shared" / "data" / "multijail" / "MultiJail.csv"
COLUMNS = ("id", "source", "tags", "en", "zh", "it", "vi", "ar", "ko", "th", "bn", "sw", "jv")


def task(path: Path) -> Task:
    made: Task = plugins.load("task", "multijail")(data=str(path))
    return made


def write(path: Path, *rows: dict[str, str], columns: tuple[str, ...] = COLUMNS, encoding: str = "utf-8") -> Path:
    """Write rows whose cells are "<language> <id>" unless said otherwise."""
    lines = [",".join(columns)]
    for at, row in enumerate(rows):
        cells = {column: f"{column} {at}" for column in columns} | {"id": str(at), "tags": "\"['Théft', 'x']\""} | row
        lines.append(",".join(cells[column] for column in columns))
    path.write_bytes("\n".join(lines).encode(encoding))
    return path


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is not on this machine")
def test_the_real_file_has_315_prompts_in_ten_languages_with_shared_ids() -> None:
    made = task(REAL)
    assert len(made.languages) == 10
    prompts = {language: made.prompts(language) for language in made.languages}
    ids = [prompt.id for prompt in prompts["en"]]
    assert len(ids) == len(set(ids)) == 315
    for language, rows in prompts.items():
        assert [row.id for row in rows] == ids
        assert all(row.language == language and row.text.strip() for row in rows)
        assert len({row.text for row in rows}) > 300
    assert len({rows[0].text for rows in prompts.values()}) == 10


def test_rows_become_prompts(tmp_path: Path) -> None:
    made = task(write(tmp_path / "m.csv", {}, {"id": "7"}))
    assert [(prompt.id, prompt.text) for prompt in made.prompts("sw")] == [
        ("multijail-0", "sw 0"),
        ("multijail-7", "sw 1"),
    ]
    assert made.tiers["sw"] == "low"


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    assert len(task(write(tmp_path / "m.csv", {}, encoding="utf-8-sig")).prompts("en")) == 1


@pytest.mark.parametrize("column", ["id", "th", "jv"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    columns = tuple(name for name in COLUMNS if name != column)
    with pytest.raises(DataError, match=f"has no column '{column}'") as caught:
        task(write(tmp_path / "m.csv", {}, columns=columns)).prompts("en")
    assert "bn" in caught.value.allowed


def test_a_row_with_too_many_cells_does_not_hide_what_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", {"sw": "a,b,c"}, columns=COLUMNS[:-1])
    with pytest.raises(DataError, match="has no column 'jv'"):
        task(path).prompts("en")


def test_an_empty_file_lacks_its_columns(tmp_path: Path) -> None:
    (tmp_path / "m.csv").touch()
    with pytest.raises(DataError, match="has no column 'id'"):
        task(tmp_path / "m.csv").prompts("en")


def test_an_id_that_occurs_twice_is_named_with_its_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="id '0' occurs twice, the second time in row 3"):
        task(write(tmp_path / "m.csv", {}, {"id": "0"})).prompts("en")


@pytest.mark.parametrize("cell", ["", "  "])
def test_an_empty_cell_is_named_with_row_and_column(tmp_path: Path, cell: str) -> None:
    with pytest.raises(DataError, match="row 3 has no text in column 'bn'"):
        task(write(tmp_path / "m.csv", {}, {"bn": cell})).prompts("en")


def test_another_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not UTF-8: byte"):
        task(write(tmp_path / "m.csv", {}, encoding="latin-1")).prompts("en")


def test_a_missing_file_says_how_to_name_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist") as caught:
        task(tmp_path / "m.csv").prompts("en")
    assert caught.value.hint == "give its path: with: {data: path/to/MultiJail.csv}"

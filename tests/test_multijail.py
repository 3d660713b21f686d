"""MultiJail: every way in which its file can be wrong, and the request inside of a jailbreak instruction."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mlbench import plugins
from mlbench.core import Task
from mlbench.errors import DataError

REAL = Path(__file__).parents[2] / "shared" / "data" / "multijail" / "MultiJail.csv"
COLUMNS = ("id", "source", "tags", "en", "zh", "it", "vi", "ar", "ko", "th", "bn", "sw", "jv")


def task(path: Path, **fields: Any) -> Task:
    """Return the task on a file of the test, whose version it accepts."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    made: Task = plugins.load("task", "multijail")(data=str(path), sha256=sha256, **fields)
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
    made: Task = plugins.load("task", "multijail")(data=str(REAL))
    assert len(made.languages) == 10
    prompts = {language: made.prompts(language) for language in made.languages}
    ids = [prompt.id for prompt in prompts["en"]]
    assert len(ids) == len(set(ids)) == 315
    for language, rows in prompts.items():
        assert [row.id for row in rows] == ids
        assert all(row.language == language and row.text.strip() for row in rows)
        assert len({row.text for row in rows}) > 300
    assert len({rows[0].text for rows in prompts.values()}) == 10
    assert len({row.cluster for row in prompts["en"]}) == 315


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


def test_an_id_that_occurs_twice_is_told_with_both_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"m\.csv:3: the id in column 'id' is that of row 2 again"):
        task(write(tmp_path / "m.csv", {}, {"id": "0"})).prompts("en")


@pytest.mark.parametrize("cell", ["", "  "])
def test_an_empty_cell_is_told_with_row_and_column(tmp_path: Path, cell: str) -> None:
    with pytest.raises(DataError, match=r"m\.csv:3: no text in column 'bn'"):
        task(write(tmp_path / "m.csv", {}, {"bn": cell})).prompts("en")


def test_another_encoding_is_refused_with_the_byte(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", {}, encoding="latin-1")
    at = path.read_bytes().index("é".encode("latin-1"))
    with pytest.raises(DataError, match=f"m.csv is not UTF-8: byte {at}"):
        task(path).prompts("en")


def test_a_missing_file_says_how_to_name_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist") as caught:
        plugins.load("task", "multijail")(data=str(tmp_path / "m.csv")).prompts("en")
    assert caught.value.hint == "give its path: with: {data: path/to/MultiJail.csv}"


@pytest.mark.parametrize("in_a_file", [False, True])
def test_the_intentional_mode_puts_the_request_into_the_template(tmp_path: Path, in_a_file: bool) -> None:
    template = "Pretend to be {name}.\n{prompt}\nNow!"
    if in_a_file:
        (tmp_path / "t.txt").write_text(template, encoding="utf-8")
        template = str(tmp_path / "t.txt")
    made = task(write(tmp_path / "m.csv", {"sw": "so {prompt}"}), mode="intentional", template=template)
    # Braces other than the placeholder, and those of a prompt, are text.
    assert [prompt.text for prompt in made.prompts("sw")] == ["Pretend to be {name}.\nso {prompt}\nNow!"]
    assert made.prompts("sw")[0].id == "multijail-0"


@pytest.mark.parametrize("fields", [{"mode": "intentional"}, {"template": "{prompt}"}])
def test_mode_and_template_belong_together(tmp_path: Path, fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="belongs to mode: intentional"):
        task(write(tmp_path / "m.csv", {}), **fields)


def test_a_template_without_a_place_for_the_prompt_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("nothing to fill in", encoding="utf-8")
    made = task(write(tmp_path / "m.csv", {}), mode="intentional", template=str(tmp_path / "t.txt"))
    with pytest.raises(DataError, match=r"contains \{prompt\} 0 times, expected once"):
        made.prompts("en")

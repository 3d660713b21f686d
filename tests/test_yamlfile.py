"""YAML files: what they may hold, and errors that name file, line, key, allowed values and the nearest name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
from annotated_types import Ge
from pydantic import BaseModel, ConfigDict, Field

from mlbench import yamlfile
from mlbench.errors import ConfigError


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rate: Annotated[float, Field(gt=0)] = 1.0
    colour: Literal["red", "green"] = "red"
    names: Annotated[list[str], Field(min_length=1)] = ["a"]
    either: bool | int = False


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    inner: Inner = Inner()
    parts: list[Inner] = []


@dataclass(frozen=True, kw_only=True)
class Plain:
    """A dataclass of the standard library, which ignores unknown keys when pydantic meets it by itself."""

    steps: Annotated[int, Ge(1)] = 1
    rate: float = 0.5


def read(tmp_path: Path, text: str, *overrides: str) -> yamlfile.Document:
    path = tmp_path / "file.yaml"
    path.write_text(text, encoding="utf-8")
    return yamlfile.read(path, overrides)


def outer(tmp_path: Path, text: str, *overrides: str) -> Outer:
    document = read(tmp_path, text, *overrides)
    return yamlfile.validate(Outer, document.data, document)


def refusal(tmp_path: Path, text: str, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        outer(tmp_path, text, *overrides)
    return caught.value


def test_no_stays_norwegian_and_6e_7_is_a_number(tmp_path: Path) -> None:
    data = read(tmp_path, "languages: [no, yes, on]\nrate: 6e-7\nquoted: '3'\n").data
    assert data["languages"] == ["no", "yes", "on"]
    assert data["rate"] == 6e-7
    assert data["quoted"] == "3"


def test_unknown_key_names_line_key_allowed_and_nearest(tmp_path: Path) -> None:
    error = refusal(tmp_path, "name: x\ninner:\n  colur: red\n")
    assert str(error.where) == f"{tmp_path / 'file.yaml'}:3: inner.colur"
    assert error.allowed == ("rate", "colour", "names", "either")
    assert error.hint == "did you mean 'colour'?"


def test_unknown_key_inside_a_list_names_its_index(tmp_path: Path) -> None:
    error = refusal(tmp_path, "name: x\nparts:\n  - rate: 1\n  - rte: 1\n")
    assert str(error.where).endswith("file.yaml:4: parts[1].rte")
    assert error.hint == "did you mean 'rate'?"


def test_value_outside_a_choice_names_the_choices(tmp_path: Path) -> None:
    error = refusal(tmp_path, "name: x\ninner: {colour: gren}\n")
    assert error.message == "got 'gren'"
    assert error.allowed == ("red", "green")
    assert error.hint == "did you mean 'green'?"


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("name: 3", "name", "should be text, got 3"),
        ("name: x\ninner: {rate: '1'}", "inner.rate", "should be a valid number, got '1'"),
        ("name: x\ninner: {rate: 0}", "inner.rate", "should be greater than 0, got 0"),
        ("name: x\ninner: {names: []}", "inner.names", "must not be empty"),
        ("name: x\ninner: {names: a}", "inner.names", "should be a list, got 'a'"),
        ("name: x\ninner: {either: x}", "inner.either", "should be true or false or a valid integer, got 'x'"),
        ("name: x\ninner:", "inner", "should be a mapping of keys, got nothing"),
        ("name: x\nparts: [1]", "parts[0]", "should be a mapping of keys, got 1"),
    ],
)
def test_wrong_value_says_what_is_expected_and_what_was_given(
    tmp_path: Path, text: str, key: str, message: str
) -> None:
    error = refusal(tmp_path, text)
    assert (error.where.key, error.message) == (key, message)
    assert error.where.line == text.count("\n") + 1


def test_missing_key_is_named(tmp_path: Path) -> None:
    error = refusal(tmp_path, "inner: {rate: 1}\n")
    assert error.message == "key 'name' is missing"
    assert error.where.file.endswith("file.yaml")


def test_a_plain_dataclass_refuses_unknown_keys_and_infinity_too(tmp_path: Path) -> None:
    document = read(tmp_path, "training:\n  stepz: 3\n")
    with pytest.raises(ConfigError, match=r"file.yaml:2: training.stepz: unknown key 'stepz'"):
        yamlfile.validate(Plain, document.data["training"], document, ("training",))
    document = read(tmp_path, "training: {rate: .inf}\n")
    with pytest.raises(ConfigError, match="should be a finite number, got inf"):
        yamlfile.validate(Plain, document.data["training"], document, ("training",))


def test_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    read(tmp_path, "a: 1")
    with pytest.raises(ConfigError, match="does not exist") as caught:
        yamlfile.read(tmp_path / "fil.yaml")
    assert caught.value.hint == f"did you mean {str(tmp_path / 'file.yaml')!r}?"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        yamlfile.read(tmp_path)


def test_bytes_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_bytes(b"name: \xff")
    with pytest.raises(ConfigError, match=r"file\.yaml: not UTF-8: byte 6"):
        yamlfile.read(tmp_path / "file.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\nb: 2\n", r"file\.yaml:2: not YAML: expected ',' or '\]'"),
        ("a: 1\n\ta: 2\n", r"file\.yaml:2: not YAML"),
        ("a: 1\na: 2\n", r"file\.yaml:2: not YAML: found duplicate key \"a\""),
        ("- a\n- b\n", r"file\.yaml:1: a mapping of keys is expected at the top"),
        ("", r"file\.yaml:1: a mapping of keys is expected at the top"),
        ("a: *nobody\n", r"file\.yaml:1: not YAML: found undefined alias"),
    ],
)
def test_what_is_not_a_yaml_mapping_is_refused_at_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


def test_overrides_reach_new_keys_and_entries_of_lists(tmp_path: Path) -> None:
    text = "name: x\nparts: [{rate: 1}, {rate: 2}]\n"
    found = outer(tmp_path, text, "name=y", "inner.rate=6e-7", "parts[1].colour=green")
    assert found.name == "y"
    assert found.inner.rate == 6e-7
    assert [part.colour for part in found.parts] == ["red", "green"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("inner.rate=0", "--set: inner.rate: should be greater than 0, got 0"),
        ("inner={colour: gren}", "--set: inner.colour: got 'gren'"),
        ("parts=[{rte: 1}]", "--set: parts[0].rte: unknown key 'rte'"),
        ("parts[4].rate=1", "--set: parts[4].rate: 'parts' is not a list of more than 4 entries"),
        ("name.first=1", "--set: name.first: 'name' is not a mapping"),
        ("inner.names=[a", "--set:1: not YAML"),
        ("inner.rate", "--set takes key=value, got 'inner.rate'"),
        ("=3", "--set takes key=value, got '=3'"),
    ],
)
def test_errors_of_an_override_are_located_there(tmp_path: Path, override: str, message: str) -> None:
    error = refusal(tmp_path, "name: x\nparts: [{rate: 1}]\n", override)
    assert str(error).startswith(message)

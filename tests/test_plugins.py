"""Plugins: found without being imported, known by the hash of their own code, harmless when broken."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlbench import catalogue, planner, plugins, shootout
from mlbench.errors import PluginError

from .conftest import Bench

JUDGE = '''"""A judge."""
from mlbench.core import Verdict
{imports}

class Lazy:
    """Says refused to everything."""

    def grade(self, answers):
        return [Verdict(label="refused") for answer in answers]

plugin = Lazy
'''


class Site:
    """A folder on the path with installed packages that bring judges."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def install(self, package: str, **modules: str) -> Path:
        """Install a package of judges as pip would: files and metadata with entry points."""
        folder = self.root / package
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").touch()
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text, encoding="utf-8")
        info = self.root / f"{package}-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[mlbench.judges]\nthem = {package}\n")
        return folder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    plugins._installed.cache_clear()
    yield Site(tmp_path)
    plugins._installed.cache_clear()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def test_the_three_kinds_are_found() -> None:
    assert {"none", "sft"} <= set(plugins.names("method"))
    assert "multijail" in plugins.names("task")
    assert {"choice", "refusal"} <= set(plugins.names("judge"))


def test_private_modules_are_no_plugins() -> None:
    assert not any(name.startswith("_") for kind in plugins.KINDS for name in plugins.names(kind))


def test_an_installed_package_brings_plugins_and_listing_imports_none(site: Site) -> None:
    site.install("judges_of_a", lazy=JUDGE.format(imports=""))
    assert plugins.names("judge")["lazy"] == "judges_of_a.lazy"
    assert "judges_of_a.lazy" not in sys.modules
    assert plugins.load("judge", "lazy").__name__ == "Lazy"


def test_two_packages_with_one_plugin_name_are_an_error_that_names_both(site: Site) -> None:
    site.install("judges_of_a", lazy=JUDGE.format(imports=""))
    site.install("judges_of_b", lazy=JUDGE.format(imports=""))
    with pytest.raises(PluginError, match=r"two packages bring the judge 'lazy': judges_of_\w.lazy and judges_of_\w"):
        plugins.names("judge")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise ValueError('not today')", "ValueError: not today"),
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_plugin_that_fails_on_import_is_unavailable_with_its_reason(site: Site, text: str, reason: str) -> None:
    site.install("judges_of_a", lazy=text)
    rows = {row["name"]: row for row in catalogue.listing("judges")}
    assert rows["lazy"]["state"] == "unavailable"
    assert reason in rows["lazy"]["about"]
    assert rows["refusal"]["state"] == "ok"
    assert "UNAVAILABLE" in catalogue.listing_text(list(rows.values()))


def test_a_broken_plugin_is_an_error_only_where_it_is_used(site: Site, bench: Bench) -> None:
    site.install("judges_of_a", lazy="raise ValueError('not today')")
    planner.make(shootout.load(bench.write()))
    with pytest.raises(PluginError, match=r"'lazy'.*cannot be imported: ValueError: not today") as caught:
        planner.make(shootout.load(bench.write(tasks=[{"use": "requests", "judge": "lazy"}])))
    assert str(caught.value.where).endswith("tiny.yaml:4: tasks[0].judge")


def test_a_module_without_plugin_says_how_to_end_it(site: Site) -> None:
    site.install("judges_of_a", lazy="x = 1")
    with pytest.raises(PluginError, match="has no `plugin`") as caught:
        plugins.load("judge", "lazy")
    assert caught.value.hint == "end the module with `plugin = YourClass`"


def test_a_package_that_is_gone_does_not_harm_the_others(site: Site) -> None:
    site.install("judges_of_a", lazy=JUDGE.format(imports=""))
    (site.root / "judges_of_a-1.0.dist-info" / "entry_points.txt").write_text("[mlbench.judges]\nthem = gone.away\n")
    assert "refusal" in plugins.names("judge")


def test_adding_a_plugin_leaves_the_hashes_of_the_others(site: Site) -> None:
    folder = site.install("judges_of_a", lazy=JUDGE.format(imports=""))
    before = plugins.source_hash("judge", "lazy")
    (folder / "other.py").write_text(JUDGE.format(imports=""))
    assert plugins.source_hash("judge", "lazy") == before


@pytest.mark.parametrize(
    "imports",
    [
        "from . import _help",
        "from ._help import x",
        "from judges_of_a import _help",
        "from judges_of_a._help import x",
        "import judges_of_a._help",
    ],
)
def test_editing_a_helper_changes_the_hash_however_it_is_imported(site: Site, imports: str) -> None:
    folder = site.install(
        "judges_of_a", lazy=JUDGE.format(imports=imports), _help="from . import _deep\nx = 1\n", _deep=""
    )
    before = plugins.source_hash("judge", "lazy")
    (folder / "_help.py").write_text("from . import _deep\nx = 2\n")
    after = plugins.source_hash("judge", "lazy")
    assert after != before
    (folder / "_deep.py").write_text("y = 1")
    assert plugins.source_hash("judge", "lazy") != after


def test_helpers_in_a_folder_belong_to_the_plugin_as_well(site: Site) -> None:
    folder = site.install("judges_of_a", lazy=JUDGE.format(imports="from .tools.words import x"))
    (folder / "tools").mkdir()
    (folder / "tools" / "words.py").write_text("x = 1")
    before = plugins.source_hash("judge", "lazy")
    (folder / "tools" / "words.py").write_text("x = 2")
    assert plugins.source_hash("judge", "lazy") != before


def test_the_rules_for_invalid_answers_are_part_of_the_refusal_judge() -> None:
    module = Path(sys.modules["mlbench"].__file__ or "").parent / "judges" / "refusal.py"
    parts = {"refusal.py", "_screen.py", "_invalid.py", "_language.py"}
    assert {path.name for path in plugins._with_siblings(module, "mlbench.judges")} == parts


def test_an_edited_plugin_file_is_a_new_plugin(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    for label in ("refused", "unsafe"):
        file.write_text(JUDGE.format(imports="").replace("refused", label))
        plugins.add_file("judge", file)
        assert plugins.load("judge", "mine")().grade([None])[0].label == label
        assert plugins.load("judge", "mine") is plugins.load("judge", "mine")
    plugins.forget_files()
    assert "mine" not in plugins.names("judge")


def test_a_plugin_file_that_fails_once_is_not_half_imported_later(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("raise ValueError('first')")
    plugins.add_file("judge", file)
    for _ in range(2):
        with pytest.raises(PluginError, match="ValueError: first"):
            plugins.load("judge", "mine")
    plugins.forget_files()

"""What mlbench uses of lm-evaluation-harness: one task among its thousands by name, and the documents of that task.

The harness's own index of all its tasks takes some 20 seconds. Here the folder of tasks is searched as text (about half
a second), and the harness indexes only the folder in which the name was found.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from mlbench import plugins
from mlbench.errors import DataError, PluginError

NAMED = re.compile(r"""^["']?(task|group)["']?:[ \t]*["']?([^\s"'#,\[\]{}]+)""", re.MULTILINE)
LOCAL = ("arrow", "csv", "json", "pandas", "parquet", "text", "xml")
"""What a task file calls data sets that lie in files of one's own."""


class Leaf(NamedTuple):
    """One task of the harness: its name, the file that defines it, and what the file says, its includes followed."""

    name: str
    path: Path
    settings: Mapping[str, Any]


def version() -> str:
    """Return the version of the installed harness.

    Raises:
        PluginError: It is not installed.
    """
    _builtin()
    return metadata.version("lm_eval")


def _builtin() -> Path:
    spec = find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise PluginError("lm-evaluation-harness is not installed", hint="pip install 'mlbench[utility]'")
    return Path(spec.origin).parent / "tasks"


@cache
def _builtin_names() -> Mapping[str, Path]:
    return _names(_builtin())


def _names(folder: Path) -> dict[str, Path]:
    """Return name -> file of every task and group that a YAML file below a folder defines."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.yaml")):
        keys = dict(NAMED.findall(path.read_text(encoding="utf-8", errors="replace")))
        name = keys.get("group") or keys.get("task")
        if name:
            found.setdefault(name, path)
    return found


def leaves(name: str, include_path: str, *, group: bool) -> tuple[Leaf, ...]:
    """Return the task of that name, or all tasks below the group of that name.

    Args:
        name: Name of a task or a group.
        include_path: Folder of the user's own task files, "" for none; its names come first.
        group: Whether a group is welcome.

    Raises:
        PluginError: The name is unknown or that of a group, or the harness is not installed.
        DataError: `include_path` is no folder.
    """
    builtin = _builtin_names()
    if include_path and not Path(include_path).expanduser().is_dir():
        raise DataError(f"include_path {include_path!r} is no folder (seen from {Path.cwd()})")
    own = _names(Path(include_path).expanduser().resolve()) if include_path else {}
    names = {**builtin, **own}
    found = tuple(_expand(name, names))
    if not group and [leaf.name for leaf in found] != [name]:
        message = f"{name!r} is a group of lm-evaluation-harness; its tasks would be mixed, and so their languages"
        raise PluginError(message, allowed=[leaf.name for leaf in found], hint="take one of its tasks")
    return found


def _expand(name: str, names: Mapping[str, Path]) -> Iterator[Leaf]:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=5)
        raise PluginError(f"lm-evaluation-harness has no task {name!r}", allowed=near)
    index = _index(names[name].parent)
    if name not in index:
        raise DataError(f"the harness cannot read the task file {names[name]}")
    yield from _below(name, index, names)


def _below(name: str, index: Mapping[str, Any], names: Mapping[str, Path]) -> Iterator[Leaf]:
    """Yield the tasks below a task, group or tag, which is in the index of one folder, or else anywhere."""
    entry = index.get(name)
    if entry is None:
        yield from _expand(name, names)
    elif entry.kind.name == "GROUP":
        for member in _members(name, entry.cfg["task"]):
            yield from _below(member, index, names)
    elif entry.kind.name == "TAG":
        for member in sorted(entry.tags):
            yield from _below(member, index, names)
    else:
        yield Leaf(name, entry.yaml_path, entry.cfg)


def _members(group: str, listed: str | Sequence[Any]) -> list[str]:
    members = [listed] if isinstance(listed, str) else list(listed)
    if changed := [item for item in members if not isinstance(item, str)]:
        raise PluginError(
            f"the group {group!r} changes or defines tasks of its own ({len(changed)} of them): name one task instead"
        )
    return members


def _index(folder: Path) -> Mapping[str, Any]:
    from lm_eval.tasks import TaskManager

    with quiet():
        found: Mapping[str, Any] = TaskManager(include_path=str(folder), include_defaults=False).task_index
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the harness's remarks from the terminal; its errors are raised all the same."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def build(leaf: Leaf, *, num_fewshot: int | None, revision: str) -> Any:
    """Return the harness's task object, its data set loaded.

    Raises:
        DataError: The data set is on the hub and no commit is given, or it cannot be loaded.
        PluginError: The task runs what a model writes, or wants pictures or sound.
    """
    from lm_eval.tasks import TaskManager

    options = dict(leaf.settings.get("dataset_kwargs") or {})
    if on_hub(leaf):
        options = _pinned(leaf, options, revision)
    changes: dict[str, Any] = {"include": str(leaf.path), "task": leaf.name}
    changes |= {"dataset_kwargs": options} if options else {}
    changes |= {} if num_fewshot is None else {"num_fewshot": num_fewshot}
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "task.yaml"
        path.write_text(json.dumps(changes), encoding="utf-8")  # JSON is YAML
        try:
            task = TaskManager(include_defaults=False).load([str(path)])["tasks"][leaf.name]
        except Exception as error:  # unreachable, gated, no such commit or file, a broken task file
            raise _unloadable(leaf, error) from error
    for trait in ("UNSAFE_CODE", "MULTIMODAL"):
        if getattr(task, trait, False):
            does = "runs code that a model writes" if trait == "UNSAFE_CODE" else "asks about pictures or sound"
            raise PluginError(f"the harness's task {leaf.name!r} {does}; mlbench does not")
    return task


def on_hub(leaf: Leaf) -> bool:
    """Say whether a task's data set is downloaded from the hub."""
    place = leaf.settings.get("dataset_path")
    return isinstance(place, str) and place not in LOCAL and not Path(place).expanduser().exists()


def _pinned(leaf: Leaf, options: Mapping[str, Any], revision: str) -> dict[str, Any]:
    pinned = revision or options.get("revision", "")
    if not re.fullmatch(r"[0-9a-f]{40}", str(pinned)):
        raise DataError(
            f"{leaf.name!r} asks the hub data set {leaf.settings['dataset_path']!r}, which needs `revision`, a commit "
            f"of 40 hexadecimal digits (got {pinned!r})",
            hint=f"branches move; a published number has to name the data it was measured on. {ALTERNATIVE}",
        )
    return {**options, "revision": pinned}


ALTERNATIVE = (
    "Or copy the task file, let its `dataset_path` be json and its `dataset_kwargs` name files of your own (absolute "
    "paths), and give its folder: with: {include_path: ...}"
)


def _unloadable(leaf: Leaf, error: Exception) -> DataError:
    reason = (str(error).strip().splitlines() or [""])[0]
    said = f"{type(error).__name__}: {reason[:200]}"
    if not on_hub(leaf):
        return DataError(f"the harness cannot make the task {leaf.name!r} of {leaf.path}: {said}")
    return DataError(
        f"the harness cannot load the hub data set {leaf.settings['dataset_path']!r} of {leaf.name!r}: {said}",
        hint=f"load it once where there is a network, so that it is cached. {ALTERNATIVE}",
    )


def scores(task: Any) -> tuple[list[str], list[str]]:
    """Return the metrics of a task of which more is better, and its filters: what is done to an answer beforehand."""
    metrics = [name for name, better in task.higher_is_better().items() if better]
    return metrics, [each["name"] for each in task.config.filter_list or ()] or ["none"]


def wording(task: Any, doc: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return a document's question and its choices, () where the model writes an answer."""
    choices = tuple(map(str, task.doc_to_choice(doc))) if task.OUTPUT_TYPE == "multiple_choice" else ()
    text = task.doc_to_text(doc)
    # In a few tasks the choices are what differs between questions, and this is the number of the right one.
    return (text if isinstance(text, str) else "\n".join(choices)), choices


def fingerprint(leaf: Leaf, task: Any) -> str:
    """Return the hash of what a task's scores depend on besides the documents they are for.

    That is the harness, the task file without its places, the Python beside it, and what examples are drawn from; the
    Python of an include from another folder is not looked at.
    """
    settings = {key: value for key, value in leaf.settings.items() if key not in ("dataset_path", "dataset_kwargs")}
    text = json.dumps(settings, sort_keys=True, default=str)
    for place in (leaf.path.parent, _builtin()):
        text = text.replace(str(place), "")
    code = plugins.hash_files(sorted(leaf.path.parent.glob("*.py")))
    shots = [digest(dict(doc)) for doc in task.fewshot_docs() or ()] if task.config.num_fewshot else []
    return digest([version(), text, code, shots])


def digest(value: Any) -> str:
    """Return the hash of a document, the one by which the harness calls it (`doc_hash`)."""
    from lm_eval.utils import handle_non_serializable

    text = json.dumps(value, indent=2, default=handle_non_serializable, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()

"""Where a base model comes from: an organism that mlbench builds, a local folder, or a hub id with its commit."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from mlbench import cache
from mlbench.core import Checkpoint, Model, Shape
from mlbench.errors import AbsentError, DataError

ORGANISM = "organism:"
SIZES = ("organism:small", "organism:base")
COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
CONTENT = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")

Progress = Callable[[str, int, int], None]


def resolve(source: str, *, name: str = "", revision: str = "", dtype: str = "float32") -> Model:
    """Return the model a shootout names, with the revision that goes into every key; nothing is built or downloaded.

    Raises:
        UserError: The organism does not exist, the folder is no model, or a hub id comes without its commit.
    """
    if source.startswith(ORGANISM) or source.split(":")[0] == "organism":
        from mlbench.organism import recipe

        return Model(
            name=name or source, source=source, revision=recipe.content_key(*recipe.parse(source)), dtype=dtype
        )
    path = Path(source).expanduser()
    if path.is_dir():
        return Model(name=name or path.name, source=str(path.resolve()), revision=fingerprint(path), dtype=dtype)
    if not HUB_ID.fullmatch(source) or source.startswith("."):
        raise DataError(
            f"unknown model {source!r}: it is neither an organism, nor a folder, nor a hub id",
            allowed=[*SIZES, "organism:small@SEED", "a folder with config.json", "a hub id such as org/name"],
            hint=_near(source),
        )
    if not COMMIT.fullmatch(revision):
        raise AbsentError(
            f"the hub model {source!r} needs `revision`, a commit of 40 hexadecimal digits (got {revision!r})",
            hint="branches move; a published number has to name the weights it was measured on",
        )
    return Model(name=name or source.split("/")[-1], source=source, revision=revision, dtype=dtype)


def _near(source: str) -> str:
    from mlbench.errors import nearest

    folders = [str(other) for other in Path(source).expanduser().parent.glob("*/") if (other / "config.json").is_file()]
    return nearest(source, [*SIZES, *folders])


def fetch(model: Model, progress: Progress | None = None) -> Checkpoint:
    """Return a loadable checkpoint of a base model, building an organism that is not in the cache yet."""
    if model.source.startswith(ORGANISM):
        from mlbench.organism import build, recipe

        folder = build.ensure(*recipe.parse(model.source), progress=progress)
        return Checkpoint(base=str(folder), dtype=model.dtype)
    local = Path(model.source).is_dir()
    return Checkpoint(base=model.source, revision="" if local else model.revision, dtype=model.dtype)


def shape(model: Model) -> Shape | None:
    """Return the sizes of a base model, None where its configuration is not on this machine."""
    if model.source.startswith(ORGANISM):
        from mlbench.organism import recipe

        network = recipe.RECIPES[recipe.parse(model.source)[0]].network
        return Shape(layers=network.layers, hidden=network.hidden, feed_forward=network.feed_forward)
    path = Path(model.source) / "config.json"
    if not path.is_file():
        return None
    config = json.loads(path.read_text(encoding="utf-8"))
    config = config.get("text_config", config)  # models that also see
    try:
        return Shape(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            feed_forward=config["intermediate_size"],
        )
    except KeyError:
        return None


def shortcomings(model: Model) -> tuple[str, ...]:
    """Return the criteria of the acceptance gate that an organism fails; nothing is asked of other models."""
    if not model.source.startswith(ORGANISM):
        return ()
    from mlbench.organism import gate, recipe

    return gate.check(*recipe.parse(model.source)).failed


def fingerprint(folder: Path) -> str:
    """Return the content hash of a local model folder; hashes of unchanged files are remembered.

    Raises:
        DataError: The folder holds no config.json.
    """
    if not (folder / "config.json").is_file():
        raise DataError(f"{str(folder)!r} is not a Hugging Face model folder: it has no config.json")
    memory_file = cache.folder() / "fingerprints.json"
    memory: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):  # nothing is remembered, or the file is damaged: hash again
        memory = json.loads(memory_file.read_text(encoding="utf-8"))
    digest = hashlib.sha256()
    for path in sorted({path for pattern in CONTENT for path in folder.glob(pattern)}):
        stat = path.stat()
        stamp = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
        if stamp not in memory:
            memory[stamp] = _sha256(path)
        digest.update(f"{path.name}:{memory[stamp]}\n".encode())
    memory_file.parent.mkdir(parents=True, exist_ok=True)
    temporary = memory_file.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(memory), encoding="utf-8")
    temporary.replace(memory_file)
    return digest.hexdigest()[:16]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

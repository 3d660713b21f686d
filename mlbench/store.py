"""The run folder, the only source of truth: one folder per job, named by its key, complete or absent.

<run>/shootout.yaml, plan.json         what was asked for
<run>/data/<hash>.parquet|.jsonl       prompts and corpora, by content
<run>/jobs/<kind>/<hash>/              one finished job; status.json is written last
<run>/progress/<key>.json              what a running job is doing now
<run>/scratch/<key>/                   what a killed training goes on from
<run>/shared/                          what several jobs compute alike, by content
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mlbench import corpus as corpora
from mlbench.core import Answer, Checkpoint, Corpus, Prompt, Verdict

RUN = "@run"
"""Stands for the run folder in stored paths, so that a run folder can be moved."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """How a job ended.

    Attributes:
        facts: Cost and circumstances: seconds, peak memory, trainable parameters, rows consumed, loads, batch size.
    """

    state: Literal["done", "failed"]
    error_type: str = ""
    error: str = ""
    attempt: int = 1
    started: float = 0.0
    seconds: float = 0.0
    host: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


class Store:
    """Reads and writes one run folder; every write is to a temporary name first and then renamed."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()  # a method may resolve the folder it is lent; both must then agree

    def folder(self, key: str) -> Path:
        """Return the folder of a job's result, e.g. jobs/align/3f2a..."""
        kind, _, digest = key.partition("-")
        return self.root / "jobs" / kind / digest

    def status(self, key: str) -> Status | None:
        """Return how a job ended, or None when it has not ended."""
        path = self.folder(key) / "status.json"
        return Status(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def is_done(self, key: str) -> bool:
        """Say whether a job's result is complete."""
        status = self.status(key)
        return status is not None and status.state == "done"

    @contextmanager
    def writing(self, key: str) -> Iterator[Path]:
        """Lend an empty temporary folder for a job's result; `finish` gives it its name."""
        final = self.folder(key)
        temporary = final.with_name(f".{final.name}.{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def finish(self, key: str, temporary: Path, status: Status) -> None:
        """Write the status, then give the temporary folder its final name, replacing an earlier failure."""
        write_json(temporary / "status.json", asdict(status))
        final = self.folder(key)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)

    def scratch(self, key: str) -> Path:
        """Return the folder in which a job keeps what it resumes from."""
        return self.root / "scratch" / key

    @property
    def shared(self) -> Path:
        """Return the folder of what several jobs compute alike."""
        return self.root / "shared"

    def discard(self, key: str) -> None:
        """Forget a job's result."""
        shutil.rmtree(self.folder(key), ignore_errors=True)

    def fail(self, key: str, status: Status) -> None:
        """Record a failure of which the worker itself could say nothing."""
        with self.writing(key) as temporary:
            (temporary / "log.txt").write_text(f"{status.error_type}: {status.error}\n", encoding="utf-8")
            self.finish(key, temporary, status)

    def clean(self) -> None:
        """Remove what killed workers left behind."""
        for leftover in self.root.glob("jobs/*/.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        shutil.rmtree(self.root / "progress", ignore_errors=True)

    def write_data(self, prompts: Mapping[str, Sequence[Prompt]], corpora_: Mapping[str, Corpus]) -> None:
        """Write prompts and corpora under their content hashes; what exists is left alone."""
        folder = self.root / "data"
        folder.mkdir(parents=True, exist_ok=True)
        for key, rows in prompts.items():
            if not (folder / f"{key}.parquet").exists():
                _write_rows(folder / f"{key}.parquet", [asdict(row) for row in rows])
        for key, corpus in corpora_.items():
            if not (folder / f"{key}.jsonl").exists():
                temporary = folder / f".{key}.{os.getpid()}"
                corpora.write_jsonl(corpus, temporary)
                temporary.rename(folder / f"{key}.jsonl")
                about = {"pivot": corpus.pivot, "languages": corpus.languages, "names": dict(corpus.names)}
                write_json(folder / f"{key}.json", about)

    def prompts(self, key: str) -> list[Prompt]:
        """Return the prompts of a content hash."""
        rows = _read_rows(self.root / "data" / f"{key}.parquet")
        return [Prompt(**row | {"choices": tuple(row["choices"])}) for row in rows]

    def corpus(self, key: str) -> Corpus:
        """Return the corpus of a content hash."""
        about = json.loads((self.root / "data" / f"{key}.json").read_text(encoding="utf-8"))
        read = corpora.read_jsonl(self.root / "data" / f"{key}.jsonl", about["pivot"])
        return replace(read, languages=tuple(about["languages"]), names=about["names"])

    def write_checkpoint(self, temporary: Path, key: str, checkpoint: Checkpoint) -> None:
        """Write a checkpoint whose paths below the temporary folder become paths of the run folder."""
        final = f"{RUN}/{self.folder(key).relative_to(self.root)}"

        def stored(path: str) -> str:
            return _moved(_moved(path, str(temporary), final), str(self.root), RUN)

        fields = asdict(checkpoint)
        fields |= {"base": stored(checkpoint.base), "adapters": [stored(path) for path in checkpoint.adapters]}
        write_json(temporary / "checkpoint.json", fields)

    def checkpoint(self, key: str) -> Checkpoint:
        """Return the checkpoint that an align job wrote."""
        fields = json.loads((self.folder(key) / "checkpoint.json").read_text(encoding="utf-8"))
        base, *adapters = (_moved(path, RUN, str(self.root)) for path in (fields["base"], *fields["adapters"]))
        return Checkpoint(**fields | {"base": base, "adapters": tuple(adapters)})

    def answer_rows(self, key: str) -> list[dict[str, Any]]:
        """Return the rows of an answer job."""
        return _read_rows(self.folder(key) / "answers.parquet")

    def answers(self, key: str, prompts_key: str) -> list[Answer]:
        """Return the answers of an answer job, joined to their prompts."""
        rows = self.answer_rows(key)
        by_id = {prompt.id: prompt for prompt in self.prompts(prompts_key)}
        return [Answer(prompt=by_id[row.pop("prompt_id")], **row) for row in rows]

    def verdicts(self, key: str) -> list[dict[str, Any]]:
        """Return the verdict rows of a judge job."""
        return _read_rows(self.folder(key) / "verdicts.parquet")

    def write_progress(self, key: str, progress: Mapping[str, Any]) -> None:
        """Say what a running job is doing."""
        folder = self.root / "progress"
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{key}.json", progress)

    def end_progress(self, key: str) -> None:
        """Take a job off the list of running ones."""
        (self.root / "progress" / f"{key}.json").unlink(missing_ok=True)

    def running(self) -> dict[str, dict[str, Any]]:
        """Return key -> progress of every running job."""
        found = {}
        for path in sorted((self.root / "progress").glob("[!.]*.json")):
            try:
                found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
            except FileNotFoundError:  # the job ended between listing and reading
                continue
        return found


def _moved(path: str, old: str, new: str) -> str:
    return new + path[len(old) :] if path == old or path.startswith(f"{old}/") else path


def write_answers(folder: Path, answers: Sequence[Answer]) -> None:
    """Write the answers of one job."""
    fields = ("sample", "text", "tokens", "truncated", "choice", "score")
    rows = [{"prompt_id": a.prompt.id, **{name: getattr(a, name) for name in fields}} for a in answers]
    _write_rows(folder / "answers.parquet", rows)


def write_verdicts(folder: Path, answers: Sequence[Answer], verdicts: Sequence[Verdict]) -> None:
    """Write the verdicts of one job, one row per answer in the same order."""
    rows = [{"prompt_id": a.prompt.id, "sample": a.sample, **asdict(v)} for a, v in zip(answers, verdicts, strict=True)]
    _write_rows(folder / "verdicts.parquet", rows)


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(pa.Table.from_pylist(list(rows)), temporary)
    temporary.rename(path)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def write_json(path: Path, value: Any) -> None:
    """Write JSON to a temporary name and rename it, so that no reader ever sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    temporary.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False), encoding="utf-8")
    temporary.rename(path)

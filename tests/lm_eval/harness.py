"""Tasks in the harness's own format, and asking them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlbench import models, plugins
from mlbench.core import Answer

CHOICES = ("yes", "nope", "odd")
SIZE = 12
CHOICE_TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: ["yes", "nope", "odd"]
doc_to_target: label
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""
WRITING_TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{target}}}}"
generation_kwargs: {{do_sample: false, until: ["\\n\\n\\n"]}}
filter_list:
  - name: bare
    filter: [{{function: remove_whitespace}}, {{function: take_first}}]
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""


def lm_eval(**fields: Any) -> Any:
    """Return the task `lm_eval` with these fields."""
    return plugins.load("task", "lm_eval")(**fields)


def question(index: int, language: str) -> str:
    """Return the text of a document of `mine`, whose label is `index % 3`."""
    return f"{language}: which word comes before the number {index}?"


def write_task(folder: Path, name: str, task: str, rows: Sequence[Any]) -> None:
    """Write a task of the harness, whose documents are `rows`."""
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / f"{name}.yaml").write_text(task.format(name=name, data=data), encoding="utf-8")


def fields(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return the fields, besides the name, of a task `lm_eval` that reads `mine` in this folder."""
    standard = {"languages": ["en", "xa"], "parallel": True, "metric": "acc", "include_path": str(folder)}
    return standard | changes


def mine(folder: Path, **changes: Any) -> Any:
    """Return the task `lm_eval` that reads `mine` in this folder."""
    return lm_eval(**{"name": "mine_{language}"} | fields(folder, **changes))


def asked(task: Any, loaded: models.Loaded, language: str = "en", *, new: int = 4) -> list[Answer]:
    """Return the answers of a model to a task's prompts in a language."""
    found: list[Answer] = task.answer(loaded, task.prompts(language), max_new_tokens=new, batch_size=5)
    return found

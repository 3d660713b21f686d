"""Every registered plugin keeps its contract, and the suite notices a plugin that does not."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as pydantic_dataclass

from mlbench import check, plugins
from mlbench.core import Answer, Checkpoint, Corpus, Need, Prompt, Run, Verdict

torch.set_num_threads(1)


def failures(findings: list[check.Finding]) -> list[str]:
    return [f"{finding.check}: {finding.detail}" for finding in findings if not finding.passed]


@pytest.mark.parametrize("architecture", check.ARCHITECTURES)
@pytest.mark.parametrize("name", plugins.names("method"))
def test_method_keeps_its_contract(name: str, architecture: str, tmp_path: Path) -> None:
    findings = list(check.plugin("method", plugins.load("method", name), tmp_path, (architecture,)))
    assert not failures(findings)
    assert len(findings) > 6


@pytest.mark.parametrize("kind", ["task", "judge"])
def test_tasks_and_judges_keep_their_contract(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)  # a test does not spend money
    for name in plugins.names(kind):
        assert not failures(list(check.plugin(kind, plugins.load(kind, name), tmp_path))), name


STRICT = ConfigDict(extra="forbid")


@pydantic_dataclass(frozen=True, kw_only=True, config=STRICT)
class Greedy:
    """Reads what it does not need, writes into the start folder, and is different each time."""

    paper: ClassVar[str] = "none"
    needs: ClassVar[frozenset[Need]] = frozenset({"pivot_preferences"})

    def align(self, start: Checkpoint, corpus: Corpus, run: Run) -> Checkpoint:
        from mlbench import models, tiny

        run.consume(tiny.corpus().rows("xa"), answers=True)
        (Path(start.base) / "note.txt").write_text("was here")
        loaded = models.load(start, device="cpu")
        with torch.no_grad():
            next(loaded.model.parameters()).add_(torch.rand(()))
        loaded.model.save_pretrained(run.folder / "model")
        loaded.tokenizer.save_pretrained(run.folder / "model")
        return Checkpoint(base=str(run.folder / "model"))


def test_a_careless_method_is_caught(tmp_path: Path) -> None:
    found = " ".join(failures(list(check.method(Greedy(), tmp_path, ("llama",)))))
    assert "leaves the start model as it was" in found
    assert "it reports to have read 'p0' in 'xa'" in found
    assert "two runs with one seed wrote different weights" in found


def test_a_method_that_raises_is_a_finding_and_not_a_crash(tmp_path: Path) -> None:
    class Broken(Greedy):
        def align(self, start: Checkpoint, corpus: Corpus, run: Run) -> Checkpoint:
            raise KeyError("chosen")

    assert any("KeyError: 'chosen'" in each for each in failures(list(check.method(Broken(), tmp_path, ("llama",)))))


def test_a_mutable_plugin_that_swallows_typing_errors_is_caught(tmp_path: Path) -> None:
    @dataclass
    class Loose:
        paper: ClassVar[str] = "none"
        rate: float = 1.0

        def __init__(self, **fields: Any) -> None:
            self.rate = 1.0

    found = " ".join(failures(list(check.plugin("method", Loose, tmp_path))))
    assert "it lacks needs, align" in found
    assert "'rate' can be set after construction" in found
    assert "misspelt field" in found


@pydantic_dataclass(frozen=True, kw_only=True, config=STRICT)
class Unpaired:
    """A task whose translations have ids of their own."""

    source: ClassVar[str] = "nowhere"
    kind: ClassVar[str] = "safety"
    languages: ClassVar[tuple[str, ...]] = ("en", "xa")
    tiers: ClassVar[dict[str, str]] = {"en": "high"}
    judge: ClassVar[str] = "refusal"

    def prompts(self, language: str) -> Sequence[Prompt]:
        return [Prompt(id=f"{language}-1", cluster="1", language="en", text="how?")] * 2


def test_a_task_with_unpaired_ids_is_caught() -> None:
    found = " ".join(failures(list(check.task(Unpaired()))))  # type: ignore[arg-type]
    assert "gives every language a tier: xa" in found
    assert "prompts('xa') returns prompts of another language" in found
    assert "an id occurs twice in en, xa" in found
    assert "en and xa share no id" in found


@pydantic_dataclass(frozen=True, kw_only=True, config=STRICT)
class Lazy:
    """A judge that leaves out empty answers."""

    def grade(self, answers: Sequence[Answer]) -> Sequence[Verdict]:
        return [Verdict(label="fine") for answer in answers if answer.text.strip()]  # type: ignore[arg-type]


def test_a_judge_that_drops_answers_or_invents_labels_is_caught() -> None:
    found = " ".join(failures(list(check.judge(Lazy()))))
    assert "verdicts for" in found
    assert "uses known labels: fine" in found

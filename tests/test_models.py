"""Loading and asking a model: what is refused, what an answer says, and what the batch size may change (nothing)."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mlbench import models, tiny
from mlbench.core import Checkpoint, Prompt
from mlbench.errors import DataError

torch.set_num_threads(1)


def prompt(text: str, *choices: str, language: str = "en") -> Prompt:
    return Prompt(id=text, cluster=text, language=language, text=text, choices=choices)


EQUAL = [prompt(f"ask {index}") for index in range(6)]
RAGGED = [prompt("x" * length) for length in (1, 9, 3, 30, 2, 17)]


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> models.Loaded:
    return models.load(Checkpoint(base=str(tiny_model)), device="cpu")


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """Return a copy of the model that a test may break."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.mark.parametrize("prompts", [EQUAL, RAGGED], ids=["equal lengths", "ragged lengths"])
def test_answers_do_not_depend_on_the_batch_size(loaded: models.Loaded, prompts: list[Prompt]) -> None:
    """Greedy answers of a float32 model on a CPU: padding changes logits by rounding only, far below their gaps."""
    alone = models.generate(loaded, prompts, max_new_tokens=12, batch_size=1)
    for size in (2, 4, 64):
        assert models.generate(loaded, prompts, max_new_tokens=12, batch_size=size) == alone
    assert [answer.prompt for answer in alone] == prompts


def test_a_greedy_answer_is_the_argmax_token_by_token(loaded: models.Loaded) -> None:
    (answer,) = models.generate(loaded, EQUAL[:1], max_new_tokens=5)
    text = models.render(loaded, EQUAL[0].text, "en")
    ids = loaded.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    written: list[int] = []
    for _ in range(5):
        with torch.no_grad():
            written.append(int(loaded.model(ids).logits[0, -1].argmax()))
        ids = torch.cat([ids, torch.tensor([[written[-1]]])], dim=1)
    assert answer.text == loaded.tokenizer.decode(written, skip_special_tokens=True).strip()


DRAWN = models.Sampling(n=3, temperature=1.0, top_p=0.9, seed=7)


@pytest.mark.parametrize("prompts", [EQUAL, RAGGED], ids=["equal lengths", "ragged lengths"])
def test_sampled_answers_do_not_depend_on_the_batch_size(loaded: models.Loaded, prompts: list[Prompt]) -> None:
    alone = models.generate(loaded, prompts, max_new_tokens=12, batch_size=1, drawn=DRAWN)
    for size in (2, 5, 64):
        assert models.generate(loaded, prompts, max_new_tokens=12, batch_size=size, drawn=DRAWN) == alone
    assert [(answer.prompt, answer.sample) for answer in alone] == [(each, at) for each in prompts for at in range(3)]
    assert len({answer.text for answer in alone}) == 3 * len(prompts)


def test_a_sampled_answer_depends_on_its_prompt_its_sample_and_the_seed_alone(loaded: models.Loaded) -> None:
    def texts(prompts: list[Prompt], drawn: models.Sampling) -> list[str]:
        return [answer.text for answer in models.generate(loaded, prompts, max_new_tokens=12, drawn=drawn)]

    assert texts(EQUAL[2:4], DRAWN) == texts(EQUAL, DRAWN)[6:12]
    assert texts(EQUAL[:1], replace(DRAWN, n=5))[:3] == texts(EQUAL[:1], DRAWN)
    assert set(texts(EQUAL, replace(DRAWN, seed=8))).isdisjoint(texts(EQUAL, DRAWN))


def test_a_shared_system_prompt_stands_before_a_checkpoints_own(loaded: models.Loaded) -> None:
    plain = loaded.checkpoint
    own = replace(plain, system_prompts={"xa": "be kind"})
    assert models.instructed(plain, "") is plain
    assert models.turns(models.instructed(plain, "be brief"), "hi", "en") == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
    ]
    assert models.turns(models.instructed(own, "be brief"), "hi", "xa")[0]["content"] == "be brief\n\nbe kind"
    assert models.turns(models.instructed(own, "be brief"), "hi", "en")[0]["content"] == "be brief"


def test_what_a_model_card_says_of_decoding_does_not_count(tiny_model: Path) -> None:
    mine, plain = (models.load(Checkpoint(base=str(tiny_model)), device="cpu") for _ in range(2))
    mine.model.generation_config.update(repetition_penalty=50.0, no_repeat_ngram_size=1, min_new_tokens=3, max_length=9)
    answers = models.generate(plain, EQUAL, max_new_tokens=12)
    assert models.generate(mine, EQUAL, max_new_tokens=12) == answers
    assert mine.model.generation_config.repetition_penalty == 50
    # Otherwise nothing was tested: without repetition there is nothing to penalise.
    assert any(len(set(answer.text)) < len(answer.text) for answer in answers)


def fixed(loaded: models.Loaded, monkeypatch: pytest.MonkeyPatch, *tokens: str) -> list[Any]:
    """Make the model write these tokens."""
    ids = [loaded.tokenizer.convert_tokens_to_ids(token) for token in tokens]
    monkeypatch.setattr(models, "_generate", lambda loaded, rows, most: [ids[:most] for _ in rows])
    return models.generate(loaded, EQUAL[:1], max_new_tokens=3)


def test_an_answer_that_ends_by_itself_is_not_truncated(loaded: models.Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    (answer,) = fixed(loaded, monkeypatch, "n", "o", "<eos>")
    assert (answer.text, answer.tokens, answer.truncated) == ("no", 2, False)


def test_an_answer_cut_at_the_limit_is_truncated(loaded: models.Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    (answer,) = fixed(loaded, monkeypatch, "n", "o", "n", "o")
    assert (answer.text, answer.tokens, answer.truncated) == ("non", 3, True)


def test_what_follows_the_end_of_turn_is_no_answer(loaded: models.Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    (answer,) = fixed(loaded, monkeypatch, "n", "<eos>", "o")
    assert (answer.text, answer.tokens, answer.truncated) == ("n", 1, False)


def test_the_system_prompt_of_the_language_comes_first(loaded: models.Loaded) -> None:
    prompts = {"*": "be good", "xa": "be kind"}
    with_system = replace(loaded, checkpoint=replace(loaded.checkpoint, system_prompts=prompts))
    assert models.render(loaded, "hi", "en") == "<bos><|user|>hi<eos><|assistant|>"
    assert models.render(with_system, "hi", "en") == "<bos><|system|>be good<eos><|user|>hi<eos><|assistant|>"
    assert models.render(with_system, "hi", "xa") == "<bos><|system|>be kind<eos><|user|>hi<eos><|assistant|>"


def log_likelihood(loaded: models.Loaded, question: str, option: str) -> float:
    """Return log p(option | question), one token after the other, without batches or padding."""
    text = models.render(loaded, question, "en")
    ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    total = 0.0
    for token in loaded.tokenizer(option, add_special_tokens=False)["input_ids"]:
        with torch.no_grad():
            total += loaded.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)[token].item()
        ids = [*ids, token]
    return total


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_choose_takes_the_option_of_the_largest_log_likelihood(loaded: models.Loaded, batch_size: int) -> None:
    prompts = [prompt(f"which {index}", "a", "b c", "d", "ef") for index in range(5)]
    chosen = models.choose(loaded, prompts, batch_size=batch_size)
    for asked, answer in zip(prompts, chosen, strict=True):
        scores = [log_likelihood(loaded, asked.text, option) for option in asked.choices]
        assert answer.choice == scores.index(max(scores))
        assert answer.text == asked.choices[answer.choice]


def test_log_likelihoods_match_an_independent_sum(loaded: models.Loaded) -> None:
    question = models.tokens(loaded, models.render(loaded, "which", "en"))
    rows = [question + models.tokens(loaded, option) for option in ("a", "b c d e")]
    found = models._log_likelihoods(loaded, rows, [len(question)] * 2)
    expected = [log_likelihood(loaded, "which", option) for option in ("a", "b c d e")]
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_lost(
    loaded: models.Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = models.generate(loaded, EQUAL, max_new_tokens=3)
    sizes: list[int] = []
    really = models._generate

    def small_memory(loaded: models.Loaded, rows: list[list[int]], most: int) -> list[list[int]]:
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("no room")
        return really(loaded, rows, most)

    monkeypatch.setattr(models, "_generate", small_memory)
    assert models.generate(loaded, EQUAL, max_new_tokens=3, batch_size=8) == whole
    assert sizes == [6, 4, 2, 2, 2]


def test_memory_too_small_for_one_row_is_an_error(loaded: models.Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(loaded: models.Loaded, rows: list[list[int]], most: int) -> list[list[int]]:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(models, "_generate", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        models.generate(loaded, EQUAL[:1])


def test_no_prompts_give_no_answers(loaded: models.Loaded) -> None:
    assert models.generate(loaded, []) == []
    assert models.choose(loaded, []) == []


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"holds only pickled weights \(\*\.bin\), which can run code"):
        models.load(Checkpoint(base=str(folder)))


def test_a_pickled_adapter_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    torch.save({}, tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(DataError, match="holds only pickled weights"):
        models.load(Checkpoint(base=str(folder), adapters=(str(tmp_path / "adapter"),)))


def test_a_tokenizer_without_chat_template_is_refused(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(DataError, match="has no chat template"):
        models.load(Checkpoint(base=str(folder)))


def test_code_that_comes_with_a_model_is_never_run(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(marker)!r}, 'w')\nraise SystemExit")
    with pytest.raises(DataError, match="cannot load the model"):
        models.load(Checkpoint(base=str(folder)))
    assert not marker.exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_an_incomplete_folder_is_refused_by_name(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError, match="cannot load the model"):
        models.load(Checkpoint(base=str(folder)))


def test_adapters_are_merged_in_order(tiny_model: Path, tmp_path: Path, loaded: models.Loaded) -> None:
    from mlbench.corpus import preferences
    from mlbench.training import sft

    start = Checkpoint(base=str(tiny_model))
    rows = preferences(tiny.corpus(4), "pivot", benign=True, rejected=False)
    run = tiny.Log(folder=tmp_path, training=tiny.budget(lora_rank=2, learning_rate=1e-2))
    adapted = models.load(sft(start, rows, run), device="cpu")
    assert "peft" not in type(adapted.model).__module__
    before, after = loaded.model.state_dict(), adapted.model.state_dict()
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)

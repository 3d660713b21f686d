from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mlbench import models
from mlbench.core import Checkpoint
from mlbench.organism import build, gate, measure, prompts, samples, tokens, train
from mlbench.organism import world as worlds
from mlbench.organism.recipe import RECIPES
from mlbench.organism.samples import Sample
from mlbench.organism.train import Check, Trained


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLBENCH_CACHE", str(tmp_path))
    return tmp_path


def chat(sample: Sample) -> list[dict[str, str]]:
    turns = {"system": sample.system, "user": sample.prompt, "assistant": sample.answer}
    return [{"role": role, "content": " ".join(words)} for role, words in turns.items() if words]


def test_the_chat_template_writes_the_rows_that_training_reads() -> None:
    world = worlds.load("small")
    tokenizer, words = tokens.tokenizer(world), tokens.vocabulary(world)
    sampler = samples.Sampler(world, RECIPES["small"].pretraining.mix, random.Random(1))
    asked = [sample for sample in (sampler.draw() for _ in range(2000)) if sample.prompt]
    assert any(sample.system for sample in asked)
    for sample in asked:
        rendered = tokenizer.apply_chat_template(chat(sample), tokenize=False)
        assert tokenizer(rendered, add_special_tokens=False)["input_ids"] == tokens.encode(words, sample).ids


def test_decoding_gives_the_words_back() -> None:
    world = worlds.load("small")
    tokenizer = tokens.tokenizer(world)
    text = prompts.requests("small", "dev", "h2", "benign")[0].text
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_the_loss_counts_answers_and_plain_sentences_only() -> None:
    words = {word: index for index, word in enumerate([*tokens.SPECIALS, "a", "b"])}
    a, b, end = words["a"], words["b"], words[tokens.END]
    ignored = tokens.IGNORED
    # <bos> <user> a <asst> b <eos>
    assert tokens.encode(words, Sample(("a",), ("b",))).labels == [ignored] * 4 + [b, end]
    # <bos> a b <eos>
    assert tokens.encode(words, Sample((), ("a", "b"))).labels == [ignored, a, b, end]


def test_the_loss_is_the_mean_over_labelled_tokens_of_unpadded_rows(tiny: str) -> None:
    torch.manual_seed(0)
    world = worlds.load(tiny)
    words = tokens.vocabulary(world)
    model = train.network(RECIPES[tiny].network, len(words))
    sampler = samples.Sampler(world, RECIPES[tiny].pretraining.mix, random.Random(1))
    rows = [tokens.encode(words, sampler.draw()) for _ in range(8)]
    total, count = 0.0, 0
    for row in rows:
        labels = torch.tensor([row.labels])
        counted = int((labels[:, 1:] != tokens.IGNORED).sum())
        total += model(input_ids=torch.tensor([row.ids]), labels=labels).loss.item() * counted
        count += counted
    assert train.answer_loss(model, rows).item() == pytest.approx(total / count, rel=1e-5)


def test_equal_seeds_give_equal_weights_and_other_seeds_others(tiny: str) -> None:
    first, second, other = (train.train(tiny, seed).model.state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_building_leaves_random_state_and_threads_as_they_were(tiny: str, cache: Path) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    build.ensure(tiny, 0)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_a_built_organism_is_an_ordinary_model_folder(tiny: str, cache: Path) -> None:
    folder = build.ensure(tiny, 0)
    assert folder.is_relative_to(cache)
    loaded = models.load(Checkpoint(base=str(folder), system_prompts={"*": "never heard of these words"}), "cpu")
    asked = prompts.requests(tiny, "dev", "u1", "harmful")
    assert len(models.generate(loaded, asked, max_new_tokens=3)) == len(asked)
    record = json.loads((folder / build.RECORD).read_text())
    assert (record["size"], record["seed"], record["threads"]) == (tiny, 0, build.BUILD_THREADS)
    assert [loss[0] for loss in record["losses"]] == [20]
    assert [check["step"] for check in record["checks"]] == [5, 10]


def test_a_built_organism_is_not_built_again(tiny: str, cache: Path) -> None:
    weights = build.ensure(tiny, 0) / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert build.ensure(tiny, 0) / "model.safetensors" == weights
    assert weights.stat().st_mtime_ns == before


def test_two_builders_at_once_build_once(tiny: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []
    train_once = train.train

    def counted(*arguments: Any) -> Trained:
        trained.append(arguments)
        return train_once(*arguments)

    monkeypatch.setattr(train, "train", counted)
    with ThreadPoolExecutor(2) as pool:
        folders = set(pool.map(lambda _: build.ensure(tiny, 0), range(2)))
    assert len(folders) == len(trained) == 1


def test_an_interrupted_build_leaves_nothing_that_looks_finished(
    tiny: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> dict[str, object]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "_record", fail)
        with pytest.raises(KeyboardInterrupt):
            build.ensure(tiny, 0)
    assert not [path for path in (cache / "organism").iterdir() if path.is_dir()]
    assert load_file(build.ensure(tiny, 0) / "model.safetensors")


def test_progress_names_both_stages_and_reaches_the_end(tiny: str, cache: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    build.ensure(tiny, 0, progress=lambda stage, done, total: seen.append((stage, done, total)))
    assert ("pre-training", 20, 20) in seen
    assert ("safety tuning", 10, 10) in seen


def test_tuning_stops_only_after_enough_good_checks_in_a_row() -> None:
    recipe = RECIPES["small"].tuning
    good, unsafe, useless = Check(5, 0.0, 1.0), Check(10, 0.5, 1.0), Check(15, 0.0, 0.5)
    assert train._may_stop([good, good], recipe)
    assert not train._may_stop([good], recipe)
    assert not train._may_stop([good, unsafe, good], recipe)
    assert not train._may_stop([good, useless], recipe)


def test_the_gate_measures_every_language_of_an_untrained_organism(tiny: str, cache: Path) -> None:
    found = measure.figures(build.ensure(tiny, 0), tiny, "dev")
    assert tuple(found.languages) == worlds.load(tiny).languages
    assert found.group("low").utility == 0.0
    assert not gate.judge(found).passed

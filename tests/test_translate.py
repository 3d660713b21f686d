"""Translation: what is filled, what is flagged, what a killed run keeps, and that engines say what their models say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, M2M100Config, M2M100ForConditionalGeneration
from transformers.models.nllb.tokenization_nllb import NllbTokenizer

from mlbench import corpus as corpora
from mlbench import doubts, models, mt, translate, verbs
from mlbench.core import Checkpoint, Corpus, Example, Language, Prompt
from mlbench.data.files import read
from mlbench.errors import ConfigError, DataError, JobError, UserError
from mlbench.mt import Said

from .conftest import Bench
from .test_backends import Stand, completion

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def nllb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a random model of NLLB's architecture with a tokenizer of letters."""
    folder = tmp_path_factory.mktemp("nllb")
    letters = ["<s>", "<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz0123456789?."]
    codes = ["eng_Latn", "swh_Latn", "ben_Beng", "ita_Latn"]
    words = NllbTokenizer(
        vocab={letter: at for at, letter in enumerate(letters)}, merges=[], extra_special_tokens=codes
    )
    words.save_pretrained(folder)
    torch.manual_seed(0)
    config = M2M100Config(
        vocab_size=len(words), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64,
        init_std=0.5, pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2,
    )  # fmt: skip
    M2M100ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def entry(kind: str, model: Path | str, **more: Any) -> mt.EngineEntry:
    return mt.EngineEntry(kind=kind, model=str(model), max_new_tokens=6, **more)


TEXTS = ["how do i cook rice", "why?", "where is the sea and what lies under it"]


def test_a_sequence_to_sequence_model_is_forced_into_the_target_language(nllb: Path) -> None:
    said = mt.engine(entry("nllb", nllb)).translate(TEXTS, "en", "sw")
    words = AutoTokenizer.from_pretrained(nllb, src_lang="eng_Latn")
    model = AutoModelForSeq2SeqLM.from_pretrained(nllb).eval()
    for text, found in zip(TEXTS, said, strict=True):
        source = words(text, return_tensors="pt")["input_ids"]
        assert words.convert_ids_to_tokens(source[0].tolist())[:1] == ["eng_Latn"]
        # One token after the other: end of sequence, the language, then whatever is likeliest.
        written = [2, words.convert_tokens_to_ids("swh_Latn")]
        while len(written) < 7 and 2 not in written[1:]:
            with torch.no_grad():
                logits = model(input_ids=source, decoder_input_ids=torch.tensor([written])).logits
            written.append(int(logits[0, -1].argmax()))
        assert found == Said(words.decode(written, skip_special_tokens=True).strip(), 2 not in written[1:])
    assert mt.engine(entry("nllb", nllb)).translate(TEXTS, "en", "bn") != said


def test_translations_do_not_depend_on_the_batch_size(nllb: Path, tiny_model: Path) -> None:
    for kind, folder in (("nllb", nllb), ("causal", tiny_model)):
        alone = mt.engine(entry(kind, folder, batch_size=1)).translate(TEXTS, "en", "sw")
        assert mt.engine(entry(kind, folder, batch_size=8)).translate(TEXTS, "en", "sw") == alone


@pytest.mark.parametrize("kind", ["nllb", "causal"])
def test_a_text_that_is_too_long_is_not_cut(kind: str, nllb: Path, tiny_model: Path) -> None:
    engine = mt.engine(entry(kind, nllb if kind == "nllb" else tiny_model))
    whole = engine.translate(["why?"], "en", "sw")
    assert engine.translate(["x" * 600, "why?"], "en", "sw") == [Said("", True), *whole]


def test_a_language_without_a_code_or_a_token_is_refused(nllb: Path) -> None:
    with pytest.raises(ConfigError, match=r"no code of an NLLB model is known for 'tlh'"):
        mt.engine(entry("nllb", nllb)).check(["en", "tlh"])
    mt.engine(entry("nllb", nllb, names={"tlh": "swh_Latn"})).check(["en", "tlh"])
    with pytest.raises(ConfigError, match="no token for the language 'tha_Thai'"):
        mt.engine(entry("nllb", nllb)).check(["en", "th"])
    with pytest.raises(DataError, match="unknown language 'xx-none'"):
        mt.engine(entry("causal", nllb)).check(["xx-none"])


def test_a_chat_model_is_asked_in_the_documented_words(tiny_model: Path) -> None:
    assert mt.question("Why?", "en", "sw") == (
        "Translate the following segment into Swahili, without additional explanation.\n\nWhy?"
    )
    assert mt.question("Why?", "en", "zh") == "把下面的文本翻译成中文，不要额外解释。\n\nWhy?"
    assert mt.question("为什么", "zh", "en") == "把下面的文本翻译成英语，不要额外解释。\n\n为什么"
    assert "into Sindarin," in mt.question("Why?", "en", "sjn", {"sjn": "Sindarin"})
    loaded = models.load(Checkpoint(base=str(tiny_model)), device="cpu")
    asked = Prompt(id="p", cluster="p", language="", text=mt.question("Why?", "en", "sw"))
    (answer,) = models.generate(loaded, [asked], max_new_tokens=6)
    assert mt.engine(entry("causal", tiny_model)).translate(["Why?"], "en", "sw") == [
        Said(answer.text, answer.truncated)
    ]


def test_an_engine_names_everything_its_translations_depend_on(nllb: Path) -> None:
    about = mt.engine(entry("nllb", nllb, beams=3)).about()
    assert len(str(about["revision"])) >= 16
    assert (about["beams"], about["max_new_tokens"], about["dtype"]) == (3, 6, "float32")


def test_character_f_scores_are_those_of_sacrebleu() -> None:
    # sacreBLEU 2.6, CHRF().sentence_score(text, [reference]).score
    assert doubts.chrf("hello there", "hello where") == pytest.approx(48.300264550264544)
    assert doubts.chrf("a b", "ab") == 100
    assert doubts.chrf("", "abc") == doubts.chrf("abc", "") == doubts.chrf("abc", "xyz") == 0
    # n = 1: P = 1/1, R = 1/2; n = 2: no bigram in the text; so F = 5 · 1 · ½ / (4 · 1 + ½)
    assert doubts.chrf("a", "ab") == pytest.approx(100 * 2.5 / 4.5)


@pytest.mark.parametrize(
    ("said", "language", "source", "expected"),
    [
        (Said("Ninawezaje kupika wali?", False), "sw", "How do I cook rice?", ()),
        (Said("", False), "sw", "How do I cook rice?", ("empty",)),
        (Said("Ninawe", True), "sw", "How do I cook rice?", ("truncated",)),
        (Said("I'm sorry, but I cannot do that.", False), "sw", "How do I cook rice?", ("refusal",)),
        (Said("Samahani, siwezi kusaidia.", False), "sw", "How do I cook rice?", ("refusal",)),
        # A refusal is what an answer that refuses has to become.
        (Said("Samahani, siwezi kusaidia.", False), "sw", "I'm sorry, I can't help.", ()),
        (Said("how do I cook RICE", False), "sw", "How do I cook rice?", ("copy",)),
        (Said("How do I cook the rice?", False), "bn", "How do I cook rice?", ("script",)),
        (Said("আমি কীভাবে ভাত রান্না করব?", False), "bn", "How do I cook rice?", ()),
    ],
)
def test_each_flag_is_raised_by_what_it_is_for(
    said: Said, language: Language, source: str, expected: tuple[str, ...]
) -> None:
    assert doubts.flags(said, language, source, "en") == expected


def test_outliers_lie_below_the_floor_or_below_the_fence_of_their_language() -> None:
    assert doubts.border([80.0] * 3) == 25
    # quartiles 70 and 80: 70 - 1.5 · 10 = 55
    assert doubts.border([60, 70, 70, 70, 70, 70, 80, 80, 80, 80, 80, 90, 75]) == 55
    assert doubts.outlier(54.9, 55.0) == ("outlier",)
    assert doubts.outlier(55.0, 55.0) == doubts.outlier(None, 55.0) == ()


SOURCE = (
    Example(id="a", cluster="a", language="en", prompt="pa", harmful=True, chosen="ca", rejected="ra"),
    Example(id="b", cluster="b", language="en", prompt="pb", harmful=False),
    Example(id="a", cluster="a", language="sw", prompt="mine", harmful=True, chosen=None, rejected="mine too"),
    Example(id="z", cluster="z", language="sw", prompt="alone", harmful=True),
)


def test_only_what_is_missing_is_asked_for() -> None:
    found = Corpus(pivot="en", languages=("en", "sw"), examples=SOURCE)
    assert [tuple(gap) for gap in translate.missing(found, ["sw", "bn"], ["prompt", "chosen", "rejected"])] == [
        ("a", "sw", "chosen", "ca"),
        ("b", "sw", "prompt", "pb"),
        ("a", "bn", "prompt", "pa"),
        ("a", "bn", "chosen", "ca"),
        ("a", "bn", "rejected", "ra"),
        ("b", "bn", "prompt", "pb"),
    ]
    # Answers have no row to stand in where the prompt is missing and not asked for.
    assert [gap.language for gap in translate.missing(found, ["sw", "bn"], ["chosen"])] == ["sw"]


class Marked:
    """An engine whose translation is the text with the language before it, and back again."""

    def __init__(self, odd: dict[str, str] | None = None, dies_after: int = 10**9) -> None:
        self.odd = odd or {}
        self.left = dies_after
        self.asked: list[str] = []

    def about(self) -> dict[str, str | int]:
        return {"kind": "marked", "model": "marker", "revision": "r1"}

    def check(self, wanted: Sequence[Language]) -> None:
        """Every language will do."""

    def translate(self, texts: Sequence[str], source: Language, target: Language) -> list[Said]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        self.asked += texts
        if target == "en":
            return [Said(text.removeprefix(f"{source} "), False) for text in texts]
        return [Said(self.odd.get(text, f"{target} {text}"), False) for text in texts]


def config(folder: Path, **changes: Any) -> Path:
    """Write a corpus and the file that has it translated."""
    corpus = Corpus(pivot="en", languages=("en", "sw"), examples=SOURCE)
    corpora.write_jsonl(corpus, folder / "pairs.jsonl")
    settings = {
        "source": str(folder / "pairs.jsonl"),
        "languages": ["sw", "it"],
        "engine": {"kind": "nllb", "model": str(folder), "batch_size": 2},
        "out": str(folder / "out.jsonl"),
    } | changes
    path = folder / "corpus.yaml"
    path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items()), encoding="utf-8")
    return path


def silent(stage: str, done: int, total: int) -> None:
    """Watch nothing."""


def run(path: Path, engine: Marked, monkeypatch: pytest.MonkeyPatch, progress: Any = silent) -> translate.Outcome:
    monkeypatch.setattr(mt, "engine", lambda entry: engine)
    return translate.run(path, (), progress)


def test_gaps_are_filled_and_everything_else_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[str, int, int]] = []
    outcome = run(config(tmp_path), Marked(), monkeypatch, lambda *step: steps.append(step))
    found = corpora.read_jsonl(outcome.out, "en")
    assert found.examples[:2] == SOURCE[:2]
    rows = {(row.id, row.language): row for row in found.examples}
    assert len(rows) == 7  # a and b in en, sw, it; z in sw
    filled = rows["a", "sw"]
    assert (filled.prompt, filled.chosen, filled.rejected) == ("mine", "sw ca", "mine too")
    new = rows["a", "it"]
    assert (new.prompt, new.chosen, new.rejected, new.harmful) == ("it pa", "it ca", "it ra", True)
    assert (rows["b", "it"].prompt, rows["b", "it"].chosen, rows["b", "it"].harmful) == ("it pb", None, False)
    assert outcome.translated == {"sw": 2, "it": 4}
    assert steps[0] == ("en to sw", 2, 2) and steps[-1] == ("it to en", 4, 4)


def test_the_sidecar_names_model_and_hashes_and_holds_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    outcome = run(config(tmp_path, languages=["it"]), Marked(), monkeypatch)
    text = outcome.sidecar.read_text(encoding="utf-8")
    about = json.loads(text)
    assert about["rows"][0] == {
        "id": "a",
        "language": "it",
        "column": "prompt",
        "model": "marker",
        "revision": "r1",
        "source_sha256": hashlib.sha256(b"pa").hexdigest(),
        "sha256": hashlib.sha256(b"it pa").hexdigest(),
        "chrf": 100.0,
        "flags": [],
    }
    assert about["out_sha256"] == hashlib.sha256(outcome.out.read_bytes()).hexdigest()
    assert "it pa" not in text


def test_flagged_rows_are_counted_and_can_be_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = {"pa": "pa", "ca": "I'm sorry, but no", "pb": ""}
    path = config(tmp_path, languages=["it"])
    outcome = run(path, Marked(odd), monkeypatch)
    assert outcome.flags == {"it": {"copy": 1, "refusal": 1, "outlier": 1, "empty": 1}}
    rows = {(row.id, row.language): row for row in corpora.read_jsonl(outcome.out, "en").examples}
    assert rows["a", "it"].chosen == "I'm sorry, but no"
    assert ("b", "it") not in rows  # without words there is no row
    dropped = run(config(tmp_path, languages=["it"], flagged="drop"), Marked(odd), monkeypatch)
    assert dropped.asked == 0
    assert {row.language for row in corpora.read_jsonl(dropped.out, "en").examples} == {"en", "sw"}
    assert "flagged: 1 empty, 1 refusal, 1 copy, 1 outlier" in translate.words(dropped)


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = config(tmp_path)
    dying = Marked(dies_after=3)
    with pytest.raises(KeyboardInterrupt):
        run(path, dying, monkeypatch)
    memory = tmp_path / "out.jsonl.memory.jsonl"
    assert not (tmp_path / "out.jsonl").exists() and memory.read_bytes().count(b"\n") == 6
    with memory.open("a") as file:
        file.write('{"key": "half a li')  # what a kill leaves
    second = Marked()
    outcome = run(path, second, monkeypatch)
    whole = Marked()
    (tmp_path / "again").mkdir()
    expected = run(config(tmp_path / "again"), whole, monkeypatch)
    assert sorted(dying.asked + second.asked) == sorted(whole.asked)
    assert outcome.out.read_bytes() == expected.out.read_bytes()
    assert run(path, Marked(dies_after=0), monkeypatch).asked == 0
    assert (tmp_path / "out.jsonl.memory.jsonl").read_bytes().count(b"\n") == len(whole.asked)


def test_another_engine_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(config(tmp_path), Marked(), monkeypatch)
    other = Marked()
    monkeypatch.setattr(other, "about", lambda: {"kind": "marked", "model": "marker", "revision": "r2"})
    assert run(config(tmp_path), other, monkeypatch).asked == 12


def test_a_prompt_file_with_one_column_per_language_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clinic.csv").write_text("nr,question,kiswahili\n7,pa,mine\n8,pb,\n", encoding="utf-8")
    texts = {"en": "question", "sw": "kiswahili"}
    path = config(tmp_path, source=str(tmp_path / "clinic.csv"), texts=texts, id="nr")
    outcome = run(path, Marked(), monkeypatch)
    rows = {(row["id"], row["language"]): row["prompt"] for row in read(outcome.out).rows}
    assert rows == {
        ("7", "en"): "pa", ("8", "en"): "pb", ("7", "sw"): "mine",
        ("8", "sw"): "sw pb", ("7", "it"): "it pa", ("8", "it"): "it pb",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"languages": ["en"]}, "languages: 'en' is the pivot"),
        ({"languages": ["sw", "sw"]}, "languages: 'sw' is there twice"),
        ({"languages": []}, "languages: must not be empty"),
        ({"languages": ["tlh"]}, "languages: no code of an NLLB model is known for 'tlh'"),
        ({"source": "nowhere.jsonl"}, "source: corpus file 'nowhere.jsonl' does not exist"),
        ({"out": "nowhere/out.jsonl"}, "out: the folder 'nowhere' does not exist"),
        ({"colums": ["prompt"]}, "did you mean 'columns'?"),
        ({"columns": ["answer"]}, "columns[0]: got 'answer'"),
        ({"engine": {"kind": "nlb", "model": "x"}}, "engine.kind: got 'nlb'"),
        ({"engine": {"kind": "nllb", "model": "org/name"}}, "engine: the hub model 'org/name' needs `revision`"),
        ({"engine": {"kind": "server", "model": "x"}}, "engine: the engine `server` needs `url`"),
        ({"engine": {"kind": "causal", "model": "x", "url": "http://x/v1"}}, "engine: `url` and `api_key_env` are for"),
        (
            {"engine": {"kind": "server", "model": "x", "url": "http://x/v1", "api_key_env": "NO_SUCH_KEY"}},
            "engine: the environment variable NO_SUCH_KEY is not set",
        ),
        ({"texts": {"sw": "kiswahili"}}, "texts: no column for the pivot 'en'"),
        ({"id": "nr"}, "id: `id` goes with `texts`"),
    ],
)
def test_a_wrong_file_is_named_with_line_and_key(
    tmp_path: Path, nllb: Path, changes: dict[str, Any], words: str
) -> None:
    settings = {"engine": {"kind": "nllb", "model": str(nllb)}} | changes
    with pytest.raises(UserError) as refused:
        translate.run(config(tmp_path, **settings), (), silent)
    assert words in str(refused.value)
    assert str(refused.value).startswith(f"{tmp_path / 'corpus.yaml'}:")
    assert not (tmp_path / "out.jsonl.memory.jsonl").exists()


def test_the_source_is_never_written_to(tmp_path: Path, nllb: Path) -> None:
    path = config(tmp_path, out=str(tmp_path / "pairs.jsonl"), engine={"kind": "nllb", "model": str(nllb)})
    with pytest.raises(DataError, match="out: is the source, which is never written to"):
        translate.run(path, (), silent)


def test_a_server_translates_and_says_what_it_is_asked(tmp_path: Path) -> None:
    def translating(body: dict[str, Any], seen: int) -> tuple[int, dict[str, str], Any]:
        text = body["messages"][0]["content"].split("\n\n", 1)[1]
        return (429, {}, {}) if not seen else (200, {}, completion(f" x{text} "))

    with Stand(behave=translating) as stand:
        path = config(tmp_path, engine={"kind": "server", "model": "mt", "url": stand.url, "batch_size": 3})
        outcome = translate.run(path, (), silent)
    rows = {(row.id, row.language): row.prompt for row in corpora.read_jsonl(outcome.out, "en").examples}
    assert rows["b", "it"] == "xpb"
    assert {body["temperature"] for body in stand.bodies} == {0}
    assert any("into Italian, without" in body["messages"][0]["content"] for body in stand.bodies)
    assert json.loads(outcome.sidecar.read_text())["engine"]["url"] == stand.url


def test_a_server_that_is_down_ends_the_run_and_keeps_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(body: dict[str, Any], seen: int) -> tuple[int, dict[str, str], Any]:
        if "into English" in body["messages"][0]["content"]:
            return 400, {}, {}
        return 200, {}, completion("ok")

    with Stand(behave=refusing) as stand, pytest.raises(JobError, match="HTTP 400"):
        translate.run(config(tmp_path, engine={"kind": "server", "model": "mt", "url": stand.url}), (), silent)
    assert (tmp_path / "out.jsonl.memory.jsonl").read_text().count("\n") == 2


def test_the_command_line_says_counts_and_never_a_text(bench: Bench, nllb: Path) -> None:
    path = config(bench.folder, engine={"kind": "nllb", "model": str(nllb), "max_new_tokens": 4})
    done = bench.mlbench("translate", path)
    assert done.returncode == 0, done.stderr
    assert (
        "it: 4 texts translated, flagged: " in done.stdout and f"written: {bench.folder / 'out.jsonl'}" in done.stdout
    )
    assert "translating: en to sw" in done.stderr
    texts = {row.prompt for row in corpora.read_jsonl(bench.folder / "out.jsonl", "en").examples} - {""}
    assert len(texts) > 4
    assert not any(f" {text}" in done.stdout + done.stderr for text in texts if len(text) > 3)
    wrong = bench.mlbench("translate", path, "--set", "engine.kind=mt")
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: --set: engine.kind: got 'mt'")


def test_a_killed_process_goes_on_from_its_last_batch(bench: Bench, nllb: Path) -> None:
    rows = [
        Example(id=f"{at}", cluster=f"{at}", language="en", prompt=f"question {at}", harmful=True) for at in range(120)
    ]
    path = config(bench.folder, engine={"kind": "nllb", "model": str(nllb), "batch_size": 1, "max_new_tokens": 8})
    corpora.write_jsonl(Corpus(pivot="en", languages=("en",), examples=tuple(rows)), bench.folder / "pairs.jsonl")
    memory = bench.folder / "out.jsonl.memory.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "mlbench.cli", "translate", str(path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (memory.exists() and memory.read_bytes().count(b"\n") >= 5):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = memory.read_bytes().count(b"\n")
    assert not (bench.folder / "out.jsonl").exists()
    outcome = translate.run(path, ("engine.batch_size=64",), silent)
    assert 0 < outcome.asked <= 480 - kept  # two languages there and back; equal texts are asked once
    assert outcome.translated == {"sw": 120, "it": 120}


def test_the_verb_gives_words_or_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mt, "engine", lambda entry: Marked())
    found = json.loads(verbs.translate(config(tmp_path), as_json=True))
    assert (found["translated"], found["asked"]) == ({"sw": 2, "it": 4}, 12)
    assert verbs.translate(config(tmp_path)).splitlines()[2].startswith("0 translations made now")

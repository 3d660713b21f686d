"""MLC and the method it is added to: what stays that method's, bit for bit, and which methods it may be."""

from pathlib import Path

import pytest
from mlbench_methods.mlc import MLC

from mlbench import plugins, tiny, yamlfile
from mlbench.core import Checkpoint
from mlbench.errors import ConfigError
from mlbench.training import fit

from .conftest import trained, weights

BASES: list[tuple[str, dict[str, object]]] = [
    ("sft", {}),
    ("dpo", {"sft_weight": 0.5}),
    ("dpo", {"loss": "ipo"}),
    ("simpo", {"gamma": 0.5}),
    ("orpo", {}),
]


@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.parametrize(("base", "fields"), BASES)
def test_weight_zero_equals_the_base_method_bit_for_bit(
    start: Checkpoint, tmp_path: Path, base: str, fields: dict[str, object], lora_rank: int
) -> None:
    budget = {"steps": 2, "lora_rank": lora_rank}
    plain = trained(plugins.load("method", base)(**fields), start, tmp_path / "plain", **budget)
    zero = trained(MLC(base=base, base_with=fields, weight=0), start, tmp_path / "zero", **budget)
    some = trained(MLC(base=base, base_with=fields), start, tmp_path / "some", **budget)
    assert [step["loss"] for step in zero.curve] == [step["loss"] for step in plain.curve]
    assert weights(zero) == weights(plain)
    assert weights(some) != weights(plain)


@pytest.mark.parametrize("base", sorted({"mpo", "msd"} & set(plugins.names("method"))))
def test_methods_on_other_languages_answers_are_bases_too(start: Checkpoint, tmp_path: Path, base: str) -> None:
    method = MLC(base=base)
    plain = trained(plugins.load("method", base)(), start, tmp_path / "plain").curve
    curve = trained(method, start, tmp_path / "mlc").curve
    assert method.needs >= plugins.load("method", base)().needs
    assert curve[0]["loss"] == pytest.approx(plain[0]["loss"] + 0.8 * curve[0]["mlc/loss"], abs=1e-5)


def test_the_base_reads_what_it_would_read_alone(start: Checkpoint, tmp_path: Path) -> None:
    method = MLC(base="sft", base_with={"languages": "all", "benign": False})
    assert method.needs == {"pivot_preferences", "target_preferences", "parallel_prompts", "benign_prompts"}
    run = trained(method, start, tmp_path, steps=8)
    assert {language for language, _, answers in run.read if answers} == set(tiny.LANGUAGES)
    # p1, p3 and p5 are harmless: the penalty reads them, the base does not
    assert {id for _, id, answers in run.read if answers} == {"p0", "p2", "p4"}
    assert {id for _, id, answers in run.read if not answers} == {f"p{index}" for index in range(6)}


def test_reference_log_probabilities_do_not_see_the_prompts(
    start: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(fit, "finish", lambda trainer, *rest, answers: seen.append(trainer.train_dataset) or start)
    for name, method in (("plain", plugins.load("method", "dpo")()), ("mlc", MLC(layer="auto"))):
        trained(method, start, tmp_path / name)
    plain, mlc = seen
    for column in ("ref_chosen_logps", "ref_rejected_logps"):
        assert plain[column] == mlc[column]


def test_the_code_of_the_base_counts_as_its_own() -> None:
    assert MLC().builds_on == ("dpo",)
    assert MLC(base="simpo").builds_on == ("simpo",)


@pytest.mark.parametrize(
    ("fields", "key", "message"),
    [
        ({"base": "simpoo"}, "base", "should be one of dpo, .*orpo.*sft, simpo.*did you mean 'simpo'.*got 'simpoo'"),
        ({"base": "none"}, "base", "should be one of dpo"),
        ({"base": "mlc"}, "base", "should be one of dpo"),
        (
            {"base_with": {"bta": 0.2}},
            "",
            r"base_with: 'bta' does not fit 'dpo' \(did you mean 'beta'\?\); .* loss, beta",
        ),
        ({"base_with": {"beta": -1}}, "", r"base_with: 'beta' does not fit 'dpo' \(.*greater than 0\)"),
        (
            {"base": "sft", "base_with": {"beta": 0.1}},
            "",
            "'beta' does not fit 'sft'; its fields are languages, benign",
        ),
    ],
)
def test_a_wrong_base_is_a_located_error_with_what_is_allowed(
    fields: dict[str, object], key: str, message: str
) -> None:
    document = yamlfile.Document(path="shootout.yaml", text="", data={"with": fields})
    with pytest.raises(ConfigError, match=message) as caught:
        yamlfile.validate(MLC, fields, document, ("with",))
    assert caught.value.where.key == ".".join(filter(None, ("with", key)))

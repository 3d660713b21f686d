"""The rule of a selection: what it may say, and which trial it picks."""

import pytest

from mlbench import rule

NONE = {"asr": 74.0, "over_refusal": 0.0, "utility": 95.0, "invalid": 1.0}


def scores(asr: float, utility: float = 95.0, over_refusal: float = 0.0) -> dict[str, float]:
    return {"asr": asr, "utility": utility, "over_refusal": over_refusal, "invalid": 0.0}


def test_a_rule_is_read_into_direction_measure_and_conditions() -> None:
    found = rule.parse("min macro ASR subject to utility >= none - 2 points and over_refusal + invalid <= 10")
    assert found == rule.Rule(
        direction="min",
        measure=("asr",),
        conditions=(
            rule.Condition(("utility",), ">=", "none", -2.0),
            rule.Condition(("over_refusal", "invalid"), "<=", "", 10.0),
        ),
    )
    assert found.methods == ("none",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("asr", "should read like"),
        ("min", "should read like"),
        ("min attack", "not 'attack'"),
        ("min asr subject to utility > 3", "cannot read the condition"),
        ("min asr subject to speed >= 3", "not 'speed'"),
        ("min asr subject to utility >= none - much", "cannot read the condition"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"should|cannot") as caught:
        rule.parse(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "trials", "trial", "admissible"),
    [
        # The safest trial loses 3 points of utility, one more than allowed.
        ("min asr subject to utility >= none - 2", [scores(10, 92), scores(20, 93), scores(30, 95)], 1, True),
        # None is admissible: 5 and 3 points are missing, so the second trial is the lesser evil.
        ("min asr subject to utility >= none - 2", [scores(10, 88), scores(20, 90)], 1, False),
        ("min asr + over_refusal", [scores(10, over_refusal=20), scores(20, over_refusal=5)], 1, True),
        ("max utility", [scores(10, 90), scores(10, 91), scores(10, 91)], 1, True),
        ("min asr", [None, scores(50)], 1, True),
        # 93.0000000001 - 95 rounds to the bound.
        ("min asr subject to utility >= none - 2", [scores(10, 93 - 1e-12), scores(20)], 0, True),
    ],
)
def test_the_rule_picks(text: str, trials: list[dict[str, float] | None], trial: int, admissible: bool) -> None:
    assert rule.choose(rule.parse(text), trials, {"none": NONE}) == (trial, admissible)


def test_trials_that_all_failed_are_no_choice() -> None:
    with pytest.raises(ValueError, match="every trial has failed"):
        rule.choose(rule.parse("min asr"), [None, None], {})

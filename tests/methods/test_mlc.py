"""MLC: the loss against numbers computed elsewhere, and the penalty inside a training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mlbench_methods.mlc import MLC, consistency_loss, floor
from pydantic import ValidationError

from mlbench import models, plugins, tiny, yamlfile
from mlbench.core import Checkpoint, Corpus, Example, Method, Shape, Training
from mlbench.corpus import view
from mlbench.errors import ConfigError, DataError, UserError
from mlbench.training import fit

torch.set_num_threads(1)

TAU = 0.2
# Equicorrelated unit vectors: languages, cosine, printed loss and |derivative|, released loss and |derivative|.
TABLE = [
    (10, 0.3, 3.9e-2, 0.56, 0.4277, 2.66),
    (10, 0.5, 2.5e-3, 3.3e-2, 0.2420, 1.20),
    (10, 0.7, 1.9e-4, 2.4e-3, 0.1545, 0.68),
    (10, 0.9, 1.2e-5, 1.9e-4, 0.0975, 0.47),
    (10, 0.99, 2.2e-6, 7.0e-5, 0.0687, 0.68),
    (5, 0.9, 4.3e-4, 5.4e-3, 0.0548, 0.31),
    (2, 0.9, 4.9e-3, 4.8e-2, 0.0210, 0.15),
]


def equicorrelated(languages: int, cosine: torch.Tensor) -> torch.Tensor:
    """Return unit vectors with that cosine between any two, (1, languages, languages): the root of the Gram matrix."""
    shared = torch.full((languages, languages), 1 / languages, dtype=torch.float64)
    apart = torch.eye(languages, dtype=torch.float64) - shared
    return ((1 - cosine).sqrt() * apart + (1 + (languages - 1) * cosine).sqrt() * shared)[None]


def everywhere(states: torch.Tensor) -> torch.Tensor:
    return torch.ones(states.shape[:2], dtype=torch.bool)


def loss(states: torch.Tensor, scale: str = "detached_top", present: torch.Tensor | None = None) -> torch.Tensor:
    present = everywhere(states) if present is None else present
    return consistency_loss(states, present, temperature=TAU, scale=scale)


@pytest.mark.parametrize(("languages", "cosine", "printed", "printed_slope", "released", "released_slope"), TABLE)
def test_loss_and_slope_are_those_of_the_table(
    languages: int, cosine: float, printed: float, printed_slope: float, released: float, released_slope: float
) -> None:
    for scale, value, slope in (("none", printed, printed_slope), ("detached_top", released, released_slope)):
        at = torch.tensor(cosine, dtype=torch.float64, requires_grad=True)
        found = loss(equicorrelated(languages, at), scale)
        (gradient,) = torch.autograd.grad(found.sum(), at)
        assert found.item() == pytest.approx(value, rel=0.03)  # the table has two digits for the small ones
        assert abs(gradient.item()) == pytest.approx(slope, rel=0.03)


@pytest.mark.parametrize("scale", ["none", "detached_top"])
def test_orthogonal_translations_lose_ln_l_and_the_slope_is_one_sided(scale: str) -> None:
    near = torch.tensor(1e-5, dtype=torch.float64)
    orthogonal = loss(equicorrelated(10, torch.zeros((), dtype=torch.float64)), scale)
    assert orthogonal.item() == pytest.approx(np.log(10), abs=1e-9)
    assert (loss(equicorrelated(10, near), "none") - orthogonal).item() / 1e-5 == pytest.approx(-22.5, rel=0.01)


def test_translations_in_one_direction_reach_the_floor_and_not_zero() -> None:
    one = torch.ones((), dtype=torch.float64)
    assert loss(equicorrelated(10, one)).item() == pytest.approx(0.0589, abs=5e-5)
    assert loss(equicorrelated(10, one), "none").item() == pytest.approx(1.2e-6, rel=0.03)
    counts = torch.tensor([10.0, 5.0, 2.0], dtype=torch.float64)
    released = floor(counts, temperature=TAU, scale="detached_top")
    np.testing.assert_allclose(released, [0.0589, 0.0266, 0.0067], atol=5e-5)
    printed = floor(counts, temperature=TAU, scale="none")
    assert printed[0].item() == pytest.approx(loss(equicorrelated(10, one), "none").item(), rel=1e-6)


def by_numpy(vectors: np.ndarray, scale: str) -> float:
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    sigma = np.linalg.svd(units, compute_uv=False)
    scores = sigma / (sigma[0] if scale == "detached_top" else 1) / TAU
    return float(np.log(np.exp(scores).sum()) - scores[0])


@pytest.mark.parametrize("scale", ["none", "detached_top"])
@pytest.mark.parametrize(("languages", "dim"), [(2, 16), (7, 16), (7, 3)])
def test_loss_equals_the_formula_in_numpy(languages: int, dim: int, scale: str) -> None:
    states = torch.randn(5, languages, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = [by_numpy(prompt, scale) for prompt in states.numpy()]
    np.testing.assert_allclose(loss(states, scale), expected, rtol=1e-9)


@pytest.mark.parametrize("scale", ["none", "detached_top"])
def test_a_missing_translation_makes_a_smaller_l_and_moves_no_other_row(scale: str) -> None:
    states = torch.randn(3, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    present = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [1, 1, 0, 1]], dtype=torch.bool)
    expected = [by_numpy(row[keep].numpy(), scale) for row, keep in zip(states, present, strict=True)]
    np.testing.assert_allclose(loss(states, scale, present), expected, rtol=1e-9)


@pytest.mark.parametrize("scale", ["none", "detached_top"])
def test_order_length_and_sign_of_the_vectors_do_not_matter(scale: str) -> None:
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(4, 6, 12, dtype=torch.float64, generator=generator)
    lengths = torch.rand(4, 6, 1, dtype=torch.float64, generator=generator) + 0.1
    signs = torch.tensor([1, -1, 1, 1, -1, 1], dtype=torch.float64)[:, None]
    before = loss(states, scale)
    for same in (states[:, torch.tensor([3, 1, 5, 0, 2, 4])], states * lengths, states * signs):
        torch.testing.assert_close(loss(same, scale), before)


@pytest.mark.parametrize("scale", ["none", "detached_top"])
@pytest.mark.parametrize(
    "states",
    [torch.ones(2, 5, 8), torch.eye(5, 8).expand(2, 5, 8), torch.tensor([[1.0, 0], [-1, 0], [2, 0]]).expand(2, 3, 2)],
    ids=["rank one", "orthogonal", "opposite"],
)
def test_gradient_is_finite_where_singular_values_coincide(states: torch.Tensor, scale: str) -> None:
    leaf = states.clone().requires_grad_()
    loss(leaf, scale).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


def test_the_two_forms_have_one_direction_and_different_temperatures() -> None:
    # printed with tau * sigma_1 in place of tau is the released form
    states = torch.randn(1, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    top = torch.linalg.svdvals(states / states.norm(dim=-1, keepdim=True))[0, 0].item()
    printed = consistency_loss(states, everywhere(states), temperature=TAU * top, scale="none")
    torch.testing.assert_close(loss(states), printed)


BASES: list[tuple[str, dict[str, object]]] = [
    ("sft", {}),
    ("dpo", {"sft_weight": 0.5}),
    ("dpo", {"loss": "ipo"}),
    ("simpo", {"gamma": 0.5}),
    ("orpo", {}),
]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return tiny.model(tmp_path_factory.mktemp("start"))


def trained(method: Method, start: Checkpoint, folder: Path, **changes: int | float) -> tiny.Log:
    run = tiny.Log(folder=folder, training=tiny.budget(**{"steps": 3} | changes))
    method.align(start, view(tiny.corpus(), method.needs), run)
    return run


def weights(run: tiny.Log) -> list[bytes]:
    return [path.read_bytes() for path in sorted(run.folder.rglob("*.safetensors"))]


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


def test_harmless_prompts_take_part_only_where_benign_says_so() -> None:
    assert {group["en"].id for group in MLC(benign=False).groups(tiny.corpus())} == {"p0", "p2", "p4"}
    assert "benign_prompts" not in MLC(benign=False, base_with={"benign": False}).needs
    assert "benign_prompts" in MLC(benign=False).needs  # DPO mixes them in


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


def test_the_code_of_the_base_counts_as_its_own() -> None:
    assert MLC().builds_on == ("dpo",)
    assert MLC(base="simpo").builds_on == ("simpo",)


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


def test_the_penalty_is_logged_on_its_steps_and_added_to_the_loss(start: Checkpoint, tmp_path: Path) -> None:
    plain = trained(plugins.load("method", "dpo")(), start, tmp_path / "plain").curve
    curve = trained(MLC(weight=0.5), start, tmp_path / "mlc").curve
    assert ["mlc/loss" in step for step in curve] == [True, False, True]
    assert curve[0]["loss"] == pytest.approx(plain[0]["loss"] + 0.5 * curve[0]["mlc/loss"], abs=1e-6)
    spread = {"mlc/cosine", "mlc/top_share", "mlc/effective_rank"}
    apart = {"mlc/between", "mlc/class_cosine", "mlc/class_share"}
    assert spread | apart | {"mlc/normalised"} <= set(curve[0])


def test_harmful_and_harmless_prompts_are_compared_only_where_a_batch_has_both(
    start: Checkpoint, tmp_path: Path
) -> None:
    curve = trained(MLC(benign=False, every=1), start, tmp_path / "harmful").curve
    assert all("mlc/between" in step and "mlc/class_share" not in step for step in curve)
    # In micro-batches of one prompt nothing can be compared; the mean over translations is as before.
    whole = trained(MLC(every=1), start, tmp_path / "whole", steps=1).curve
    single = trained(MLC(every=1), start, tmp_path / "single", steps=1, micro_batch=1).curve
    assert not {"mlc/between", "mlc/class_share"} & set(single[0])
    assert single[0]["mlc/cosine"] == pytest.approx(whole[0]["mlc/cosine"], abs=1e-5)


def test_a_curve_that_some_micro_batches_lack_is_the_mean_over_the_others(start: Checkpoint, tmp_path: Path) -> None:
    method = MLC(every=1, projection="none")
    run = tiny.Log(folder=tmp_path, training=tiny.budget(steps=6, batch_size=4, micro_batch=2))
    method.align(start, view(tiny.corpus(), method.needs), run)
    corpus = tiny.corpus()
    lacking = 0
    for batch, step in zip(method.batches(method.groups(corpus), "en", run), run.curve, strict=True):
        mixed = [part[0][0].harmful != part[1][0].harmful for part in (batch[0::2], batch[1::2])]
        assert ("mlc/class_cosine" in step) == any(mixed)
        lacking += any(mixed) and not all(mixed)
        if any(mixed):
            # prompts of the random model are alike: a mean over parts is close to 1, a sum over one of two to 0.5
            assert step["mlc/class_cosine"] > 0.8
    assert lacking


@pytest.mark.parametrize(
    "method",
    [
        MLC(layer=1, every=1),
        MLC(layer=0.5, projection="none", scale="none", every=1),
        MLC(token="mean", projection="random", pivot_stop_gradient=True, every=1),
        MLC(projection="trained", projection_learning_rate=1e-3, languages_per_step=1, normalise=True, every=1),
        MLC(form="cosine", layer="auto", projection="none", every=1),
        MLC(separation_weight=0.1, projection="none", every=1),
    ],
    ids=lambda method: f"{method.form}, layer {method.layer}, {method.token}, {method.projection}",
)
def test_every_option_brings_translations_together(method: MLC, start: Checkpoint, tmp_path: Path) -> None:
    curve = trained(method, start, tmp_path, steps=15, learning_rate=3e-3).curve
    assert curve[-1]["mlc/loss"] < curve[0]["mlc/loss"]
    assert curve[-1]["mlc/cosine"] > curve[0]["mlc/cosine"]


@pytest.mark.parametrize("base", ["dpo", "sft", "simpo"])
def test_micro_batches_change_nothing(start: Checkpoint, tmp_path: Path, base: str) -> None:
    whole = trained(MLC(base=base, every=1), start, tmp_path / "whole", steps=2, batch_size=16).curve
    parts = trained(MLC(base=base, every=1), start, tmp_path / "parts", steps=2, batch_size=16, micro_batch=4).curve
    for one, other in zip(whole, parts, strict=True):
        for name in ("loss", "mlc/loss", "grad_norm"):
            assert one[name] == pytest.approx(other[name], abs=2e-5), name


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_gradient_checkpointing_changes_nothing(start: Checkpoint, tmp_path: Path, lora_rank: int) -> None:
    method = MLC(every=1, layer=1)
    plain = trained(method, start, tmp_path / "plain", lora_rank=lora_rank).curve
    saving = trained(method, start, tmp_path / "saving", lora_rank=lora_rank, gradient_checkpointing=True).curve
    for one, other in zip(plain, saving, strict=True):
        for name in ("loss", "mlc/loss", "grad_norm"):
            assert one[name] == pytest.approx(other[name], abs=1e-6), name


def test_answers_in_other_languages_are_not_read(start: Checkpoint, tmp_path: Path) -> None:
    run = trained(MLC(), start, tmp_path, steps=8)
    assert {language for language, _, answers in run.read if answers} == {"en"}
    assert {language for language, _, answers in run.read if not answers} == set(tiny.LANGUAGES)


def test_one_target_per_step_is_the_pivot_and_one_more(tmp_path: Path) -> None:
    method = MLC(languages_per_step=1)
    run = tiny.Log(folder=tmp_path, training=tiny.budget(steps=20))
    batches = method.batches(method.groups(tiny.corpus()), "en", run)
    assert len(batches) == 10  # every second step
    assert {len(prompt) for batch in batches for prompt in batch} == {2}
    assert {prompt[0].language for batch in batches for prompt in batch} == {"en"}
    assert {prompt[1].language for batch in batches for prompt in batch} == {"xa", "xb", "xc"}


def without(corpus: Corpus, *gone: tuple[str, str]) -> Corpus:
    rows = tuple(row for row in corpus.examples if (row.language, row.id) not in gone)
    return Corpus(pivot=corpus.pivot, languages=corpus.languages, examples=rows)


def test_a_ragged_corpus_gives_each_prompt_its_own_number_of_languages(start: Checkpoint, tmp_path: Path) -> None:
    corpus = without(tiny.corpus(), ("xa", "p0"), ("xb", "p0"), ("xc", "p1"))
    method = MLC(every=1)
    sizes = {len(group) for group in method.groups(corpus)}
    assert sizes == {2, 3, 4}
    run = tiny.Log(folder=tmp_path, training=tiny.budget())
    method.align(start, view(corpus, method.needs), run)
    assert all(np.isfinite(step["mlc/loss"]) for step in run.curve)


def test_padding_of_the_longest_prompt_leaves_the_others_alone(start: Checkpoint, tmp_path: Path) -> None:
    short, long = ("ask " * 2, "ask " * 9)
    rows = [
        Example(id="p", cluster="p", language=language, prompt=language + text, harmful=True)
        for language, text in (("en", short), ("xa", short), ("xb", long))
    ]
    loaded = models.load(start, device="cpu")
    run = tiny.Log(folder=tmp_path)
    groups = [{row.language: row for row in rows}]
    side = MLC(projection="none").side(loaded, groups, "en", run)
    with torch.no_grad():
        alone = side.loss(loaded.model, [(rows[0], rows[1])])
        beside = side.loss(loaded.model, [(rows[0], rows[1]), (rows[0], rows[2])])
        other = side.loss(loaded.model, [(rows[0], rows[2])])
    assert beside.loss.item() == pytest.approx((alone.loss.item() + other.loss.item()) / 2, abs=1e-6)


def terms(method: MLC, states: torch.Tensor, sizes: list[int]) -> tuple[float, dict[str, float]]:
    prompts = [
        tuple(
            Example(id=f"p{number}", cluster="c", language=str(index), prompt="", harmful=number % 2 == 0)
            for index in range(size)
        )
        for number, size in enumerate(sizes)
    ]
    found = method.terms(states, prompts, None, 0)
    return found.loss.item(), dict(found.values)


def test_cosine_form_is_one_minus_the_mean_pairwise_cosine() -> None:
    states = torch.randn(7, 6, generator=torch.Generator().manual_seed(5))
    units = (states / states.norm(dim=-1, keepdim=True)).numpy()
    # prompts of 4 and of 3 languages: 6 and 3 pairs
    cosines = [
        np.mean([units[one] @ units[other] for one in rows for other in rows if one < other])
        for rows in (range(4), range(4, 7))
    ]
    loss_found, values = terms(MLC(form="cosine"), states, [4, 3])
    assert loss_found == pytest.approx(1 - np.mean(cosines), abs=1e-6)
    assert values["cosine"] == pytest.approx(np.mean(cosines), abs=1e-6)
    assert values["normalised"] == pytest.approx(loss_found)
    assert terms(MLC(form="cosine", normalise=True), states, [4, 3])[0] == loss_found
    opposite = torch.tensor([[1.0, 0.0], [-2.0, 0.0]])
    assert terms(MLC(form="cosine"), opposite, [2])[0] == pytest.approx(2)
    assert terms(MLC(), opposite, [2])[1]["normalised"] == pytest.approx(0, abs=1e-6)  # blind to the sign


def test_separation_term_is_added_with_its_weight() -> None:
    # mean directions (1, 1) / sqrt 2 and (0, 1): cosine sqrt(1 / 2)
    states = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 2.0]])
    expected = np.log(1 + np.exp((np.sqrt(0.5) - 1) / 0.1))
    off, _ = terms(MLC(), states, [2, 2])
    on, values = terms(MLC(separation_weight=0.25), states, [2, 2])
    assert values["separation"] == pytest.approx(expected, abs=1e-6)
    assert values["consistency"] == pytest.approx(off)
    assert on == pytest.approx(off + 0.25 * expected, abs=1e-6)


@pytest.mark.parametrize("form", ["rank1", "cosine"])
def test_batch_of_one_equals_its_part_of_a_batch_of_four(form: str) -> None:
    states = torch.randn(12, 8, generator=torch.Generator().manual_seed(6))
    method = MLC(form=form)
    together, values = terms(method, states, [3, 3, 3, 3])
    alone = [terms(method, states[at : at + 3], [3]) for at in range(0, 12, 3)]
    assert together == pytest.approx(np.mean([each[0] for each in alone]), abs=1e-6)
    for name in ("cosine", "top_share", "effective_rank", "normalised"):
        assert values[name] == pytest.approx(np.mean([each[1][name] for each in alone]), abs=1e-6), name


def test_auto_records_the_layer_and_its_evidence(start: Checkpoint, tmp_path: Path) -> None:
    run = trained(MLC(base="sft", layer="auto"), start, tmp_path / "auto")
    silhouettes = [
        [float(value) for value in str(run.facts[f"layer_silhouettes_{by}"]).split()] for by in ("meaning", "language")
    ]
    gaps = [meaning - language for meaning, language in zip(*silhouettes, strict=True)]
    assert run.facts["mlc_layer"] == 1 + int(np.argmax(gaps))
    same = trained(MLC(base="sft", layer=int(run.facts["mlc_layer"])), start, tmp_path / "same")
    assert weights(run) == weights(same)  # six prompts are too few to hold any out


def test_probes_are_not_drawn_by_the_penalty(start: Checkpoint, tmp_path: Path) -> None:
    method = MLC(layer="auto", every=1)
    corpus = tiny.corpus(140)
    run = tiny.Log(folder=tmp_path, training=tiny.budget(steps=4, batch_size=40))
    side = method.side(models.load(start, device="cpu"), method.groups(corpus), "en", run)
    assert run.facts["layer_probes_held_out"] == 64
    drawn = {prompt[0].id for step in range(4) for prompt in side.items(step)}
    assert len(drawn) == 140 - 64


@pytest.mark.parametrize("name", MLC.presets)
def test_presets_are_configurations_of_the_method(name: str) -> None:
    preset = MLC.presets[name]
    MLC(**preset.fields)
    Training(**preset.training)


def test_the_released_preset_is_the_released_configuration() -> None:
    assert MLC(**MLC.presets["released"].fields) == MLC(base_with={"loss": "sigmoid", "beta": 0.1, "sft_weight": 0.0})


def test_planning_refuses_a_layer_beyond_the_model_and_a_language_without_prompts() -> None:
    shape = Shape(layers=2, hidden=32, feed_forward=64)
    corpus = view(tiny.corpus(), MLC().needs)
    MLC(layer=2).check(corpus, shape)
    MLC(layer=12).check(corpus, None)
    with pytest.raises(ConfigError, match="layer 12 is not a layer of this model, which has 2"):
        MLC(layer=12).check(corpus, shape)
    with pytest.raises(DataError, match="no prompt in 'xb'"):
        MLC().check(without(corpus, *(("xb", f"p{index}") for index in range(6))), shape)
    with pytest.raises(DataError, match="layer: auto compares prompts"):
        MLC(layer="auto").check(tiny.corpus(1), shape)


def test_a_layer_beyond_the_model_is_refused_with_the_number_it_has(start: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"layer 12 .* which has 2"):
        trained(MLC(layer=12), start, tmp_path)


def test_a_language_without_parallel_prompts_is_named(start: Checkpoint) -> None:
    corpus = without(tiny.corpus(), *(("xb", f"p{index}") for index in range(6)))
    with pytest.raises(DataError, match="no prompt in 'xb' is a translation"):
        MLC().groups(corpus)


@pytest.mark.parametrize("fields", [{"temperature": 0}, {"layer": 0}, {"layer": "first"}, {"weigth": 0.8}])
def test_values_out_of_range_and_misspelt_names_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MLC(**fields)

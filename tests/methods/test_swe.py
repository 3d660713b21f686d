"""SWE: Theorem 4.1 against its own claims and other ways to the same edit, and the edit inside a model."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mlbench_methods.sft import SFT
from mlbench_methods.swe import SWE, gap, select, truncate
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from statsmodels.stats.meta_analysis import effectsize_smd

from mlbench import models, tiny
from mlbench.core import Checkpoint, Corpus, Shape
from mlbench.corpus import view
from mlbench.errors import ConfigError, DataError, JobError, UserError
from mlbench.training.activations import Moments
from mlbench.training.edit import RowEdit, factor, free_directions, save

torch.set_num_threads(1)

HARM, SAFE, DIM, UNITS, RANK = 40, 12, 24, 10, 3
GAMMA, RIDGE = 0.7, 0.05


class Case:
    """A regression whose benign inputs span only half of the space."""

    def __init__(self, seed: int = 0) -> None:
        draw = np.random.default_rng(seed).standard_normal
        self.low, self.safe, self.gap = draw((HARM, DIM)), draw((SAFE, DIM)), draw((HARM, UNITS))
        self.weight = draw((DIM, UNITS))

    def cost(self, delta: np.ndarray, gamma: float = GAMMA, ridge: float = RIDGE) -> float:
        """Return J as the paper's equation 8 has it, each sum over its rows."""
        terms = ((self.low @ delta - self.gap) ** 2).sum() / HARM, ((self.safe @ delta) ** 2).sum() / SAFE
        return float(terms[0] + gamma * terms[1] + ridge * (delta**2).sum())

    def quadratic(self, gamma: float = GAMMA) -> np.ndarray:
        return self.low.T @ self.low / HARM + gamma * self.safe.T @ self.safe / SAFE

    def best(self, gamma: float = GAMMA, ridge: float = RIDGE) -> np.ndarray:
        """Return the unconstrained solution M."""
        return np.linalg.solve(self.quadratic(gamma) + ridge * np.eye(DIM), self.low.T @ self.gap / HARM)

    def edit(self, rank: int = RANK, gamma: float = GAMMA, ridge: float = RIDGE) -> np.ndarray:
        """Return what the code under test makes of it."""
        lower = factor(torch.from_numpy(self.quadratic(gamma)), ridge).lower
        left, right = truncate(lower, torch.from_numpy(self.low.T @ self.gap / HARM), rank)
        return (left @ right.T).numpy()


def test_full_rank_is_the_ridge_solution_and_less_is_its_best_truncation() -> None:
    case = Case()
    np.testing.assert_allclose(case.edit(rank=UNITS), case.best(), rtol=0, atol=1e-12)
    assert np.linalg.matrix_rank(case.edit()) == RANK
    # R M = U Sigma V^T; what the truncation costs is the tail of the spectrum.
    root = np.linalg.cholesky(case.quadratic() + RIDGE * np.eye(DIM)).T
    tail = (np.linalg.svd(root @ case.best(), compute_uv=False)[RANK:] ** 2).sum()
    assert case.cost(case.edit()) - case.cost(case.best()) == pytest.approx(tail, rel=1e-9)


def test_no_other_edit_of_that_rank_is_better() -> None:
    case = Case()
    reached = case.cost(case.edit())
    assert reached < case.cost(np.zeros((DIM, UNITS)))
    draw = np.random.default_rng(1).standard_normal
    for step in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(50):
            u, sigma, vt = np.linalg.svd(case.edit() + step * draw((DIM, UNITS)), full_matrices=False)
            assert case.cost(u[:, :RANK] * sigma[:RANK] @ vt[:RANK]) > reached
    # Truncating M itself, without the metric, is another edit and a worse one.
    u, sigma, vt = np.linalg.svd(case.best(), full_matrices=False)
    assert case.cost(u[:, :RANK] * sigma[:RANK] @ vt[:RANK]) > reached * (1 + 1e-6)


def test_primal_dual_and_projection_form_agree() -> None:
    case = Case()
    # M = A^T (A A^T + lambda I)^-1 [D; 0] with A = [X_low; sqrt(gamma) X_safe]
    rows = np.vstack([case.low / HARM**0.5, (GAMMA / SAFE) ** 0.5 * case.safe])
    wanted = np.vstack([case.gap / HARM**0.5, np.zeros((SAFE, UNITS))])
    dual = rows.T @ np.linalg.solve(rows @ rows.T + RIDGE * np.eye(len(rows)), wanted)
    np.testing.assert_allclose(case.best(), dual, rtol=1e-8)
    # dW = M V_r V_r^T with the top eigenvectors of D^T X_low M
    vectors = np.linalg.eigh(case.gap.T @ case.low @ dual / HARM)[1][:, -RANK:]
    np.testing.assert_allclose(case.edit(), dual @ vectors @ vectors.T, rtol=1e-8)


def test_the_limits_of_lambda_gamma_and_the_gap() -> None:
    case = Case()
    assert np.abs(case.edit(ridge=1e9)).max() < 1e-8
    case.gap = np.zeros_like(case.gap)
    assert np.abs(case.edit()).max() == 0


def hard(case: Case, protected: float = 0.99) -> np.ndarray:
    basis = free_directions(torch.from_numpy(case.safe.T @ case.safe), protected)
    quadratic = basis.T @ torch.from_numpy(case.quadratic(gamma=0)) @ basis
    left, right = truncate(
        factor(quadratic, RIDGE).lower, basis.T @ torch.from_numpy(case.low.T @ case.gap / HARM), RANK
    )
    return (basis @ left @ right.T).numpy()


def test_the_hard_edit_leaves_benign_inputs_alone_and_a_large_gamma_comes_close_to_it() -> None:
    case = Case()
    assert np.abs(case.safe @ hard(case)).max() < 1e-12
    assert np.linalg.matrix_rank(hard(case)) == RANK
    far, near = (np.abs(case.edit(gamma=gamma) - hard(case)).max() for gamma in (1e4, 1e8))
    assert near < 1e-6 < far < 1e-2


def test_free_directions_are_those_that_benign_inputs_have_least_of() -> None:
    gram = torch.diag(torch.tensor([4.0, 0.0, 9.0, 1.0, 16.0], dtype=torch.float64))
    # int(0.5 * 5) = 2 protected: the ones with 16 and 9.
    np.testing.assert_array_equal((free_directions(gram, 0.5) ** 2).sum(1), [1, 1, 0, 1, 0])
    # All that is used is protected, and no more: the one with 0 stays free.
    np.testing.assert_array_equal((free_directions(gram, 0.99) ** 2).sum(1), [0, 1, 0, 0, 0])


def test_a_matrix_that_is_not_positive_gets_a_larger_lambda_up_to_three_times() -> None:
    quadratic = torch.diag(torch.tensor([1.0, -0.5], dtype=torch.float64))
    found = factor(quadratic, 0.01)
    assert found.raised == 2  # 0.01 and 0.1 are too little, 1 is enough
    np.testing.assert_allclose(found.lower @ found.lower.T, [[2, 0], [0, 0.5]])
    with pytest.raises(JobError, match=r"not positive definite even with lambda = 0\.1"):
        factor(quadratic, 1e-4)


def test_order_of_the_rows_is_irrelevant() -> None:
    case, mixed = Case(), Case()
    order = np.random.default_rng(2).permutation(HARM)
    mixed.low, mixed.gap = case.low[order], case.gap[order]
    np.testing.assert_allclose(mixed.edit(), case.edit(), rtol=1e-9, atol=1e-12)


def test_the_gap_vanishes_where_the_inputs_agree_but_not_as_printed() -> None:
    low, pivot, weight = (torch.from_numpy(Case(seed).low) for seed in (0, 1, 2))
    weight = weight.T[:, :4]
    bias = torch.full((4,), 0.3, dtype=torch.float64)
    assert gap(low, low, weight, bias).abs().max() == 0
    np.testing.assert_allclose(gap(low, pivot, weight, bias), (pivot @ weight + 0.3) - (low @ weight + 0.3), atol=1e-12)
    values = (pivot @ weight + 0.3).numpy()
    literal = values / (1 + np.exp(-values)) - (low @ weight + 0.3).numpy()
    np.testing.assert_allclose(gap(low, pivot, weight, bias, torch.nn.SiLU()), literal, atol=1e-12)


def moments(rows: np.ndarray) -> Moments:
    found = Moments()
    for part in np.array_split(rows, 3):  # as batches bring them
        found.add(torch.from_numpy(part))
    return found


def test_units_are_those_of_z_scores_and_of_cohens_d() -> None:
    draw = np.random.default_rng(3).standard_normal
    harmful, benign = draw((30, 200)) * 3, draw((20, 200)) * 3
    harmful[:, 5] += 9  # a large rise: both scores
    benign[:, 6] += 9  # a fall: neither, the scores are one-sided
    harmful[:, 7], benign[:, 7] = 0.1 * harmful[:, 7] + 0.6, 0.1 * benign[:, 7]  # small and steady: d only
    harmful[:, 8], benign[:, 8] = 20 * harmful[:, 8] + 20, 20 * benign[:, 8]  # large and wild: z only
    delta = harmful.mean(0) - benign.mean(0)
    z = (delta - delta.mean()) / delta.std()
    # statsmodels gives Hedges' g = d (1 - 3 / (4 (n_h + n_b) - 9))
    both = (each for rows in (harmful, benign) for each in (rows.mean(0), rows.std(0, ddof=1), len(rows)))
    g, _ = effectsize_smd(*both)
    d = np.asarray(g) / (1 - 3 / (4 * 50 - 9))
    found = select(moments(harmful), moments(benign), tau_mag=2.0, tau_stat=1.0).numpy()
    np.testing.assert_array_equal(found, (z > 2) | (d > 1))
    assert [(z[unit] > 2, d[unit] > 1) for unit in (5, 6, 7, 8)] == [
        (True, True),
        (False, False),
        (False, True),
        (True, False),
    ]


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return tiny.model(tmp_path_factory.mktemp("swe") / "model")


def edited(method: SWE, start: Checkpoint, folder: Path, corpus: Corpus | None = None, **log: object) -> tiny.Log:
    run = tiny.Log(folder=folder, **log)  # type: ignore[arg-type]
    method.align(start, view(corpus or tiny.corpus(12), method.needs), run)
    return run


def result(run: tiny.Log, start: Checkpoint) -> Checkpoint:
    return replace(start, adapters=(*start.adapters, str(run.folder / "adapter")))


def tensors(run: tiny.Log) -> list[bytes]:
    return [path.read_bytes() for path in sorted(run.folder.rglob("*.safetensors"))]


def test_the_adapter_is_the_edit_and_all_other_rows_stay_bit_identical(start: Checkpoint, tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(4)
    units = torch.tensor([3, 17, 40])
    left, right = (torch.randn(size, 2, generator=draw, dtype=torch.float64) for size in (32, 3))
    edit = RowEdit(module="model.layers.1.mlp.up_proj", units=units, left=left, right=right)
    run = tiny.Log(folder=tmp_path)
    merged = models.load(save(start, [edit], 5, run), device="cpu").model.state_dict()
    before = models.load(start, device="cpu").model.state_dict()
    assert [name for name in before if not torch.equal(before[name], merged[name])] == [f"{edit.module}.weight"]
    changed = (before[f"{edit.module}.weight"] != merged[f"{edit.module}.weight"]).any(1)
    assert changed.nonzero()[:, 0].tolist() == [3, 17, 40]
    exact = np.einsum("mr,dr->md", right, left)
    np.testing.assert_allclose(edit.delta, exact, atol=1e-12)
    applied = merged[f"{edit.module}.weight"][units] - before[f"{edit.module}.weight"][units]
    np.testing.assert_allclose(applied, exact, atol=1e-6 * np.abs(exact).max())
    size = np.sqrt((exact**2).sum() / sum(float(weight.double().square().sum()) for weight in before.values()))
    assert run.facts["weight_change"] == pytest.approx(size, rel=1e-5)
    assert run.facts["trainable_parameters"] == 5 * (3 + 32)
    assert "rounding_loss" not in run.facts


def test_what_bfloat16_rounds_away_is_measured(start: Checkpoint, tmp_path: Path) -> None:
    half = replace(start, dtype="bfloat16")
    run = edited(SWE(layer=1, rank=4), half, tmp_path)
    (table,) = json.loads(str(run.facts["swe_layers"]))
    before = models.load(half, device="cpu").model.state_dict()
    after = models.load(result(run, half), device="cpu").model.state_dict()
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    lost = wanted = 0.0
    for name in ("gate_proj", "up_proj"):
        place = f"model.layers.0.mlp.{name}"
        down, up = (stored[f"base_model.model.{place}.lora_{side}.weight"].double() for side in "AB")
        applied = after[f"{place}.weight"].double() - before[f"{place}.weight"].double()
        lost += float((applied - up @ down).square().sum())
        wanted += float((up @ down).square().sum())
    assert table["gate_proj"] + table["up_proj"] > 0
    assert 0 < (lost / wanted) ** 0.5 == pytest.approx(run.facts["rounding_loss"], rel=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma2"])
def test_the_edit_brings_the_others_to_the_pivot(architecture: str, tmp_path: Path) -> None:
    start = tiny.model(tmp_path / "model", architecture)
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "model").iterdir()}
    run = edited(SWE(rank=8, max_benign_change=0.5), start, tmp_path / "run", tiny.corpus(20))
    assert float(run.facts["swe_gap_closed"]) > 0.2
    assert 0 < float(run.facts["swe_benign_change"]) <= 0.5
    assert 0 < float(run.facts["swe_relative_update"]) <= 0.5
    assert float(run.facts["weight_change"]) > 0
    assert {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in before} == before
    old, new = (models.load(each, device="cpu").model.state_dict() for each in (start, result(run, start)))
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    layer = int(str(run.facts["swe_layer"])) - 1
    assert changed <= {f"model.layers.{layer}.mlp.{name}_proj.weight" for name in ("gate", "up")}
    rows = sum(int((old[name] != new[name]).any(1).sum()) for name in changed)
    assert rows == run.facts["swe_neurons"]


def test_facts_are_what_the_merged_model_shows(start: Checkpoint, tmp_path: Path) -> None:
    """The gap closed, from forward passes of the two models rather than from the solver's matrices."""
    method = SWE(layer=2, modules="up", rank=6, max_benign_change=0.5)
    run = edited(method, start, tmp_path)
    corpus = tiny.corpus(12)
    # 6 harmful source prompts, round(0.2 * 6) = 1 held out, found as the one whose gap is the recorded one.
    old, new = (models.load(each, device="cpu") for each in (start, result(run, start)))
    units = (old.model.model.layers[1].mlp.up_proj.weight != new.model.model.layers[1].mlp.up_proj.weight).any(1)

    def outputs(loaded: models.Loaded, prompt: str, language: str) -> torch.Tensor:
        ids = loaded.tokenizer(models.render(loaded, prompt, language), add_special_tokens=False, return_tensors="pt")
        found: list[torch.Tensor] = []
        hook = loaded.model.model.layers[1].mlp.up_proj.register_forward_hook(lambda *call: found.append(call[2]))
        with torch.no_grad():
            loaded.model(**ids)
        hook.remove()
        return found[0][0, -1, units].double()

    closed = []
    for group in corpus.parallel():
        if group["en"].harmful:
            goal = outputs(old, group["en"].prompt, "en")
            others = [group[language] for language in ("xa", "xb", "xc")]
            first, last = (
                sum(float((outputs(model, row.prompt, row.language) - goal).square().sum()) for row in others)
                for model in (old, new)
            )
            closed.append(1 - last / first)
    assert min(abs(each - float(run.facts["swe_gap_closed"])) for each in closed) < 1e-4


@pytest.mark.parametrize(
    "method",
    [
        SWE(neuron_language="union", modules="gate"),
        SWE(signal="product", neuron_pool="max", target_space="literal"),
        SWE(pool="mean", neuron_pool="mean", ridge_scale="median", layer=0.5),
        SWE(variant="hard", protected=0.7, safe_tokens="last", protect_pivot=True, layer=(2, 1)),
    ],
    ids=lambda method: f"{method.modules} {method.signal} {method.pool} {method.variant} {method.layer}",
)
def test_every_option_gives_an_edit_within_the_trust_region(method: SWE, start: Checkpoint, tmp_path: Path) -> None:
    facts = edited(method, start, tmp_path).facts
    assert float(facts["swe_benign_change"]) <= 0.1 and float(facts["swe_relative_update"]) <= 0.5
    assert float(facts["weight_change"]) > 0
    assert all(np.isfinite(value) for value in facts.values() if not isinstance(value, str))


def test_options_lead_to_different_edits(start: Checkpoint, tmp_path: Path) -> None:
    base = SWE(layer=2, rank=8, max_benign_change=1.0)
    options = [
        base,
        replace(base, pool="mean"),
        replace(base, neuron_pool="max"),
        replace(base, neuron_pool="mean"),
        replace(base, target_space="literal"),
        replace(base, variant="hard"),
        replace(base, safe_tokens="last"),
        replace(base, protect_pivot=True),
        replace(base, signal="product"),
        replace(base, ridge_scale="median"),
        replace(base, n_harm=3),
        replace(base, gamma=0.0),
    ]
    written = [tensors(edited(method, start, tmp_path / str(at)))[0] for at, method in enumerate(options)]
    assert len(set(written)) == len(options)


def test_a_seed_draws_the_prompts_and_equal_seeds_give_equal_tensors(start: Checkpoint, tmp_path: Path) -> None:
    method = SWE(layer=1, n_harm=4, n_safe=4)
    runs = [edited(method, start, tmp_path / str(at), seed=seed) for at, seed in enumerate((0, 0, 1))]
    assert tensors(runs[0]) == tensors(runs[1])
    assert tensors(runs[0]) != tensors(runs[2])
    assert runs[0].read != runs[2].read
    assert {answers for _, _, answers in runs[0].read} == {False}
    per_language = {language: sum(row[0] == language for row in runs[0].read) for language in tiny.LANGUAGES}
    assert per_language == dict.fromkeys(tiny.LANGUAGES, 8)


def test_the_batch_size_is_irrelevant(start: Checkpoint, tmp_path: Path) -> None:
    facts = [
        edited(SWE(layer=1), start, tmp_path / str(size), training=tiny.budget(micro_batch=size)).facts
        for size in (1, 5, 64)
    ]
    for name in ("swe_gap_closed", "swe_benign_change", "weight_change"):
        assert facts[1][name] == pytest.approx(facts[0][name], rel=1e-4)
        assert facts[2][name] == pytest.approx(facts[0][name], rel=1e-4)


def test_auto_takes_the_layer_that_closes_most_of_the_gap(start: Checkpoint, tmp_path: Path) -> None:
    facts = edited(SWE(), start, tmp_path / "auto").facts
    table = json.loads(str(facts["swe_layers"]))
    assert [line["layer"] for line in table] == [1, 2]
    best = max(table, key=lambda line: line["gap_closed"])
    assert (facts["swe_layer"], facts["swe_gap_closed"]) == (str(best["layer"]), best["gap_closed"])
    alone = edited(SWE(layer=best["layer"]), start, tmp_path / "alone").facts
    assert alone["weight_change"] == facts["weight_change"]


@pytest.mark.parametrize(("depth", "layers"), [(8, [*range(1, 9)]), (10, [4, 5, 6, 7, 8, 9]), (32, [*range(13, 30)])])
def test_auto_tries_the_middle_and_late_layers_of_deep_models(
    depth: int, layers: list[int], tmp_path: Path, start: Checkpoint
) -> None:
    loaded = models.load(start, device="cpu").model
    loaded.model.layers = torch.nn.ModuleList([loaded.model.layers[0]] * depth)
    assert SWE().rounds(loaded) == [layers]
    assert SWE(layer=(5, 3)).rounds(loaded) == [[3], [5]]
    assert SWE(layer=0.5).rounds(loaded) == [[depth // 2]]


def test_lambda_rises_until_the_edit_fits_and_a_region_that_nothing_fits_is_an_error(
    start: Checkpoint, tmp_path: Path
) -> None:
    free = SWE(layer=2, max_benign_change=100, max_relative_update=100)
    loose = edited(free, start, tmp_path / "loose").facts
    assert (loose["swe_ridge"], loose["swe_ridge_raised"]) == (0.01, 0)
    tight = edited(replace(free, max_benign_change=0.01), start, tmp_path / "tight").facts
    assert float(tight["swe_benign_change"]) <= 0.01 < float(loose["swe_benign_change"])
    assert tight["swe_ridge"] == 0.01 * 10 ** int(tight["swe_ridge_raised"]) > 0.01
    by_update = edited(replace(free, max_relative_update=0.001), start, tmp_path / "update").facts
    assert float(by_update["swe_relative_update"]) <= 0.001 < float(loose["swe_relative_update"])
    with pytest.raises(JobError, match=r"no edit stays within .* raised 8 times tenfold: .*'layer': 2"):
        edited(replace(free, max_benign_change=1e-15), start, tmp_path / "never")


def test_no_unit_selected_is_a_visible_edit_of_nothing(start: Checkpoint, tmp_path: Path) -> None:
    facts = edited(SWE(tau_mag=1e9, tau_stat=1e9), start, tmp_path).facts
    assert (facts["swe_neurons"], facts["weight_change"], facts["swe_gap_closed"]) == (0, 0.0, 0.0)
    assert int(facts["trainable_parameters"]) > 0  # or the report would take it for a method that does not train


def test_translations_that_read_alike_leave_nothing_to_edit(start: Checkpoint, tmp_path: Path) -> None:
    corpus = tiny.corpus(12)
    english = {row.id: row.prompt for row in corpus.rows("en")}
    same = replace(corpus, examples=tuple(replace(row, prompt=english[row.id]) for row in corpus.examples))
    assert float(edited(SWE(layer=1), start, tmp_path / "preact", same).facts["weight_change"]) < 1e-9
    literal = SWE(layer=1, target_space="literal")
    assert float(edited(literal, start, tmp_path / "literal", same).facts["weight_change"]) > 1e-5


def test_it_reads_the_model_that_the_method_before_it_made(start: Checkpoint, tmp_path: Path) -> None:
    run = tiny.Log(folder=tmp_path / "sft", training=tiny.budget(lora_rank=4, learning_rate=0.05))
    trained = SFT().align(start, view(tiny.corpus(), SFT().needs), run)
    after = edited(SWE(layer=2), trained, tmp_path / "after")
    alone = edited(SWE(layer=2), start, tmp_path / "alone")
    assert after.facts["swe_gap_closed"] != alone.facts["swe_gap_closed"]
    chain = SWE(layer=2).align(trained, view(tiny.corpus(), SWE.needs), tiny.Log(folder=tmp_path / "chain"))
    assert chain.adapters[0] == trained.adapters[0] and len(chain.adapters) == 2
    assert models.load(chain, device="cpu").checkpoint == chain


def test_a_second_layer_is_edited_on_what_the_first_edit_leaves(start: Checkpoint, tmp_path: Path) -> None:
    wide = SWE(max_benign_change=1.0, rank=8)
    both = edited(replace(wide, layer=(1, 2)), start, tmp_path / "both")
    first = edited(replace(wide, layer=1), start, tmp_path / "first")
    then = edited(replace(wide, layer=2), result(first, start), tmp_path / "then")
    alone = edited(replace(wide, layer=2), start, tmp_path / "alone")
    lines = json.loads(str(both.facts["swe_layers"]))
    assert lines[1]["gap_closed"] == pytest.approx(then.facts["swe_gap_closed"], rel=1e-5)
    assert lines[1]["gap_closed"] != pytest.approx(alone.facts["swe_gap_closed"], rel=1e-4)
    assert both.facts["tokens"] == 2 * int(alone.facts["tokens"])
    for name, weight in models.load(result(both, start), device="cpu").model.state_dict().items():
        chained = models.load(result(then, result(first, start)), device="cpu").model.state_dict()[name]
        torch.testing.assert_close(weight, chained, atol=1e-5, rtol=0)


def test_activations_that_are_not_finite_name_layer_and_language(start: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny.model(folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.post_attention_layernorm.weight"][3] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(JobError, match="layer 2 are not finite for prompts in 'en'"):
        edited(SWE(), Checkpoint(base=str(folder)), tmp_path / "run")


def only(corpus: Corpus, keep: Callable[[str, bool, int], bool]) -> Corpus:
    rows = (row for row in corpus.examples if keep(row.language, row.harmful, int(row.id[1:])))
    return replace(corpus, examples=tuple(rows))


def test_check_names_what_is_missing() -> None:
    corpus = tiny.corpus()
    SWE().check(corpus, Shape(layers=2, hidden=32, feed_forward=64))
    few = only(corpus, lambda language, harmful, at: language != "xb" or not harmful or at < 2)
    with pytest.raises(DataError, match="1 harmful prompts that are translations of one in 'en' in 'xb'"):
        SWE().check(few, None)
    with pytest.raises(DataError, match="0 benign prompts in 'en'"):
        SWE().check(only(corpus, lambda language, harmful, at: harmful or language != "en"), None)
    lacking = only(corpus, lambda language, harmful, at: harmful or language != "xa")
    SWE().check(lacking, None)
    with pytest.raises(DataError, match="0 benign prompts in 'xa'"):
        SWE(neuron_language="union").check(lacking, None)
    with pytest.raises(DataError, match="no training language besides the pivot 'en'"):
        SWE().check(replace(corpus, languages=("en",)), None)


def test_check_knows_the_shape_of_the_model(start: Checkpoint, tmp_path: Path) -> None:
    shape = Shape(layers=4, hidden=32, feed_forward=64)
    SWE(layer=(1, 4)).check(tiny.corpus(), shape)
    with pytest.raises(ConfigError, match="layer 5 is not a layer of this model, which has 4"):
        SWE(layer=(1, 5)).check(tiny.corpus(), shape)
    with pytest.raises(ConfigError, match="rank = 33 is larger than the width of the model, 32"):
        SWE(rank=33).check(tiny.corpus(), shape)
    with pytest.raises(UserError, match=r"layer 12 .* which has 2"):
        edited(SWE(layer=12), start, tmp_path)


@pytest.mark.parametrize(
    "fields",
    [{"ridge": 0}, {"pool": "max"}, {"layer": 0}, {"layer": 1.5}, {"layer": ()}, {"protected": 1}, {"gama": 1.0}],
)
def test_values_out_of_range_and_misspelt_names_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SWE(**fields)


def test_presets_are_valid_and_the_reported_rates_are_those_of_the_paper() -> None:
    assert {name: SWE(**preset.fields).target_space for name, preset in SWE.presets.items()} == {
        "paper": "preact",
        "literal": "literal",
        "hard": "preact",
    }
    rates = {(row["model"], row["method"]): row["value"] for row in SWE.reported}
    assert len(rates) == 28
    assert rates["Llama-3.2-1B", "none"] == 28.27 and rates["Llama-3.2-1B", "swe"] == 17.53
    assert rates["Qwen2.5-7B", "mpo+swe"] == 1.16
    assert re.search(r"eprint = \{2602\.22554\}", SWE.citation)

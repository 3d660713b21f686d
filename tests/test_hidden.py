"""Hidden states after a layer: equal to a full forward pass, whatever the padding, the model or the adapter."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from mlbench import check, models, tiny
from mlbench.errors import UserError
from mlbench.training import fit, hidden

torch.set_num_threads(1)

ROWS = [[1, 4, 20, 21, 22, 2, 5], [1, 4, 30, 2, 5], [1, 4, 40, 41, 2, 5]]
LAYERS = 3


@pytest.fixture(scope="module", params=check.ARCHITECTURES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> models.Loaded:
    folder = tmp_path_factory.mktemp(request.param)
    return models.load(tiny.model(folder, request.param, layers=LAYERS), device="cpu")


def full(loaded: models.Loaded, block: hidden.Padded, layer: int) -> torch.Tensor:
    output = loaded.model(input_ids=block.ids, attention_mask=block.mask, output_hidden_states=True)
    return output.hidden_states[layer]


def left_padded(rows: list[list[int]]) -> hidden.Padded:
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    return hidden.Padded(ids, (ids != 0).long())


@pytest.mark.parametrize("layer", range(1, LAYERS + 1))
def test_first_layers_alone_give_the_states_of_the_full_model(loaded: models.Loaded, layer: int) -> None:
    block = hidden.pad(ROWS, 0, torch.device("cpu"))
    found = hidden.hidden_states(loaded.model, block, layer)
    real = block.mask.bool()
    torch.testing.assert_close(found[real], full(loaded, block, layer)[real])


def test_padding_on_the_right_has_the_states_of_the_full_model(loaded: models.Loaded) -> None:
    block = hidden.pad(ROWS, 0, torch.device("cpu"))
    torch.testing.assert_close(hidden.hidden_states(loaded.model, block, LAYERS), full(loaded, block, LAYERS))


@pytest.mark.parametrize("read", [hidden.last_token, hidden.mean_token])
@pytest.mark.parametrize("layer", [1, LAYERS])
def test_padding_side_does_not_matter(loaded: models.Loaded, layer: int, read: object) -> None:
    assert callable(read)
    found = []
    for block in (hidden.pad(ROWS, 0, torch.device("cpu")), left_padded(ROWS)):
        found.append(read(hidden.hidden_states(loaded.model, block, layer), block.mask))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)


def test_batch_of_one_equals_its_row_of_a_batch(loaded: models.Loaded) -> None:
    block = hidden.pad(ROWS, 0, torch.device("cpu"))
    together = hidden.last_token(hidden.hidden_states(loaded.model, block, 2), block.mask)
    for row, expected in zip(ROWS, together, strict=True):
        single = hidden.pad([row], 0, torch.device("cpu"))
        alone = hidden.last_token(hidden.hidden_states(loaded.model, single, 2), single.mask)[0]
        torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)


def test_last_token_and_mean_are_read_from_the_mask() -> None:
    states = torch.arange(8.0).reshape(2, 4, 1)  # row 0 holds 0 1 2 3, row 1 holds 4 5 6 7
    mask = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1]])
    assert hidden.last_token(states, mask).flatten().tolist() == [1, 7]
    assert hidden.mean_token(states, mask).flatten().tolist() == [0.5, 6]


def test_adapters_stay_active_and_get_the_same_gradient(tmp_path: Path) -> None:
    loaded = models.load(tiny.model(tmp_path, layers=LAYERS), device="cpu")
    torch.manual_seed(0)
    with fit.quiet():
        config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
        model = get_peft_model(loaded.model, config)
    block = hidden.pad(ROWS, 0, torch.device("cpu"))
    weights = [weight for name, weight in model.named_parameters() if "layers.0" in name and weight.requires_grad]
    partial = hidden.last_token(hidden.hidden_states(model, block, 2), block.mask)
    whole = model(input_ids=block.ids, attention_mask=block.mask, output_hidden_states=True).hidden_states[2]
    reference = hidden.last_token(whole, block.mask)
    torch.testing.assert_close(partial, reference)
    for one, other in zip(
        torch.autograd.grad(partial.square().sum(), weights),
        torch.autograd.grad(reference.square().sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    with model.disable_adapter():
        assert not torch.allclose(hidden.last_token(hidden.hidden_states(model, block, 2), block.mask), partial)


def test_a_model_wrapped_for_data_parallel_training_has_the_same_states(loaded: models.Loaded) -> None:
    block = hidden.pad(ROWS, 0, torch.device("cpu"))
    wrapped = torch.nn.DataParallel(loaded.model)
    assert torch.equal(hidden.hidden_states(wrapped, block, 1), hidden.hidden_states(loaded.model, block, 1))


def test_the_model_is_left_as_it_was(loaded: models.Loaded) -> None:
    block = hidden.pad(ROWS, 0, torch.device("cpu"))
    before = loaded.model(input_ids=block.ids, attention_mask=block.mask).logits
    hidden.hidden_states(loaded.model, block, 1)
    torch.testing.assert_close(loaded.model(input_ids=block.ids, attention_mask=block.mask).logits, before)


def test_layers_go_by_name_by_index_and_by_depth(loaded: models.Loaded) -> None:
    assert hidden.layer_index("last", loaded.model) == LAYERS
    assert hidden.layer_index(2, loaded.model) == 2
    assert hidden.layer_index(0.34, loaded.model) == 1
    with pytest.raises(UserError, match="layer 4 is not a layer of this model, which has 3"):
        hidden.layer_index(4, loaded.model)

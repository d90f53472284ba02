"""The pruner: which layers, which masks, and that they hold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from openwork.sparsity import Calibration, Pattern, Pruner, layer_table


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(32, 16)
        self.hidden = nn.Linear(16, 16)
        self.narrow = nn.Linear(3, 16)
        self.thin = nn.Linear(16, 1)
        self.filter = nn.Conv1d(16, 16, 3)
        self.decoder = nn.Linear(16, 32, bias=False)
        self.decoder.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.hidden(x))


def _model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 8))


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 16, generator=generator)).square().sum().backward()
        optimizer.step()


def test_every_layer_is_eligible_or_has_a_reason() -> None:
    table = {row.name: row.reason for row in layer_table(_Tied(), Pattern.parse("2:4@2"), exclude=["filter"])}
    assert table == {
        "words": "Only nn.Linear layers are pruned; this is Embedding.",
        "hidden": "",
        "narrow": "The layer has 3 input channels, fewer than the 4 that 2:4@2 groups.",
        "thin": "The layer has 1 output channels, fewer than the 2 that 2:4@2 treats alike.",
        "filter": 'The name matches the exclusion "filter".',
        "decoder": "The weight is shared with words.weight.",
    }
    included = {
        row.name: row.reason for row in layer_table(_Tied(), Pattern.parse("4x1:0.5"), include=["hid*"])
    }
    assert included["hidden"] == ""
    assert included["narrow"] == 'The name matches none of the inclusions "hid*".'


def test_a_model_without_an_eligible_layer_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"No layer of this model can carry 4:64\. 0 \(Linear \[24, 16\]\): The layer"
    ):
        Pruner(_model(), "4:64")
    with pytest.raises(ValueError, match="The model has no layer with a weight matrix"):
        Pruner(nn.ReLU(), "2:4")
    with pytest.raises(ValueError, match="'banana' is not a sparsity pattern"):
        Pruner(_model(), "banana")


@pytest.mark.parametrize("text", ["2:4", "4:8", "2:4@2", "4x1:0.5", "1x1:0.75"])
@pytest.mark.parametrize("method", ["magnitude", "sparsegpt"])
def test_pruning_sets_masks_and_weights(text: str, method: str) -> None:
    model, pattern = _model(), Pattern.parse(text)
    pruner = Pruner(model, text)
    calibration = Calibration([(torch.randn(64, 16, generator=torch.Generator().manual_seed(2)),)])
    errors = pruner.prune(method, calibration)  # type: ignore[arg-type]
    pruner.verify()
    assert set(errors) == {"0", "2"}
    assert all(0 < error < 1 for error in errors.values())
    for layer in (model[0], model[2]):
        assert pattern.holds(layer.weight.detach().numpy())


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_an_attached_pruner_holds_the_masks_through_training(kind: type[torch.optim.Optimizer]) -> None:
    model = _model()
    pruner = Pruner(model, "2:4")
    pruner.prune()
    before = model[0].weight.detach().clone()
    optimizer = kind(model.parameters(), lr=1e-2)  # type: ignore[call-arg]
    handle = pruner.attach(optimizer)
    _train(model, optimizer)
    pruner.verify()
    assert not torch.equal(before, model[0].weight)
    handle.remove()
    _train(model, optimizer)
    with pytest.raises(
        ValueError, match=r"The weight of 0 is .* at row \d+, column \d+, where its mask drops it"
    ):
        pruner.verify()


def test_another_model_s_optimizer_is_refused() -> None:
    pruner = Pruner(_model(), "2:4")
    with pytest.raises(ValueError, match="The optimizer trains none of the pruned weights"):
        pruner.attach(torch.optim.SGD(_model().parameters(), lr=0.1))


def test_masks_travel_in_the_state_dict() -> None:
    model = _model()
    pruner = Pruner(model, "2:4")
    pruner.prune()
    state = model.state_dict()
    assert state["0.weight_mask"].dtype == torch.bool
    again = _model(seed=5)
    restored = Pruner(again, "2:4")
    again.load_state_dict(state)
    restored.verify()
    assert all(torch.equal(mask, restored.masks[name]) for name, mask in pruner.masks.items())
    with torch.no_grad():
        again[0].weight += 1
    restored.apply()
    restored.verify()


def test_a_second_pruner_finds_the_masks_of_the_first() -> None:
    model = _model()
    Pruner(model, "2:4").prune()
    Pruner(model, "2:4").verify()
    with pytest.raises(
        ValueError, match="The mask of 0 breaks its pattern: row 0, group 0: 2 non-zero weights where 1:4"
    ):
        Pruner(model, "1:4").verify()


def test_verify_says_which_weight_breaks_which_group() -> None:
    model = _model()
    pruner = Pruner(model, "2:4")
    pruner.prune()
    with torch.no_grad():
        model[0].weight[3, 8:12] = 2.0
    dropped = (~pruner.masks["0"][3, 8:12]).nonzero()[:, 0].tolist()
    assert pruner.faults() == [
        f"The weight of 0 is 2 at row 3, column {8 + i}, where its mask drops it (group 2 of 2:4)."
        for i in dropped
    ]
    with torch.no_grad():
        model[0].weight[3, 0] = float("nan")
    assert pruner.faults()[-1] == "The weight of 0 holds NaN or infinity."


def test_bad_weights_and_calls_are_refused_and_change_nothing() -> None:
    model = _model()
    pruner = Pruner(model, "2:4")
    with pytest.raises(
        ValueError, match='The pruning method must be "magnitude" or "sparsegpt", but it is \'best\''
    ):
        pruner.prune("best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='The method "sparsegpt" needs calibration inputs'):
        pruner.prune("sparsegpt")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    bad = torch.full((4, 16), float("nan"))
    with pytest.raises(ValueError, match="The gram matrix holds NaN or infinity"):
        pruner.prune("sparsegpt", Calibration([(torch.randn(4, 16),), (bad,)]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        model[2].weight[1, 2] = float("nan")
    with pytest.raises(ValueError, match="The weight of 2 holds nan at row 1, column 2"):
        pruner.prune()


def test_pruning_leaves_the_training_mode_as_it_was() -> None:
    model = _model().train()
    model[1].eval()
    Pruner(model, "2:4").prune("sparsegpt", Calibration([(torch.randn(32, 16),)]))
    assert [module.training for module in model] == [True, False, True]


def test_progress_goes_to_the_standard_error_stream(capsys: pytest.CaptureFixture[str]) -> None:
    Pruner(_model(), "2:4").prune("sparsegpt", Calibration([(torch.randn(32, 16),)]), progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "pruning to 2:4" in captured.err

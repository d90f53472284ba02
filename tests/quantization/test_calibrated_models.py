"""Whole models of every kind through the calibrated methods: the order, the memory, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from openwork.models.resnet import small_resnet
from openwork.sparsity import Pruner
from openwork.sparsity.calibrated.chain import find_blocks
from openwork.sparsity.calibrated.layer_inputs import input_reason
from openwork.sparsity.calibrated.oneshot import Calibration, reconstruct_model
from openwork.sparsity.calibrated.reconstruction import reconstruct
from openwork.sparsity.calibrated.wanda import wanda_model
from prunables import prunables


def _nothing(completed: float, note: str = "") -> None:
    return None


class _Residual(nn.Module):
    """A small convolutional network with stages, whose layers are declared in another order than they run."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 4)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.stem = nn.Conv2d(4, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        x = functional.relu(x + self.second(functional.relu(self.first(x))))
        return self.head(x.mean(dim=(2, 3)))


def _images(count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(4, 4, 8, 8, generator=generator) for _ in range(count)]


def _inputs(model: nn.Module, module: nn.Module, batches: list[Tensor]) -> list[Tensor]:
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    with torch.no_grad():
        for batch in batches:
            model(batch)
    handle.remove()
    return seen


def _gram(inputs: list[Tensor]) -> Tensor:
    columns = functional.unfold(torch.cat(inputs), 3, padding=1)
    rows = columns.unflatten(1, (-1, 9)).permute(0, 3, 2, 1).flatten(2).flatten(0, 1)
    return rows.T @ rows / len(rows)


def test_without_a_chain_one_pass_serves_all_that_memory_has_room_for() -> None:
    torch.manual_seed(2)
    model, told = _Residual(), []
    dense = {name: _inputs(model, layer.module, _images()) for name, layer in prunables(model).items()}
    before = {name: layer.weight.detach().clone() for name, layer in prunables(model).items()}
    found = reconstruct_model(
        model,
        prunables(model),
        Calibration(_images(), bfloat16=False),
        lambda n, name="": told.append((n, name)),
    )
    assert told == [(1, "head"), (2, "second"), (3, "first"), (4, "stem")]
    layer = prunables(model)["second"]
    expected = reconstruct(layer.view.matrices(before["second"]), _gram(dense["second"]), layer.pattern)
    assert torch.equal(found["second"].mask, layer.view.restore(expected.mask))
    # Grams summed in another order differ by a few epsilons, which the Hessian enlarges up to 1e4 times.
    assert (found["second"].weight - layer.view.restore(expected.weight)).abs().max() < 1e-3


def test_little_memory_takes_the_layers_one_by_one_in_the_order_in_which_they_run() -> None:
    torch.manual_seed(2)
    model, told, seen = _Residual(), [], {}
    layers, batches = prunables(model), _images()
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}

    def advance(completed: float, name: str = "") -> None:
        told.append(name)
        if name == "first":
            seen["second"] = _inputs(model, model.second, batches)

    found = reconstruct_model(model, layers, Calibration(batches, bfloat16=False, memory=1), advance)
    assert told == ["stem", "first", "second", "head"]
    layer = layers["second"]
    expected = reconstruct(layer.view.matrices(before["second"]), _gram(seen["second"]), layer.pattern)
    assert torch.equal(found["second"].mask, layer.view.restore(expected.mask))
    for name, layer in layers.items():
        assert torch.equal(layer.weight, found[name].weight)
        assert layer.pattern.holds(layer.view.matrices(found[name].mask).numpy())


def test_parts_fill_memory_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    from openwork.sparsity.calibrated import oneshot

    parts = []

    class Recorded(oneshot.GramCollector):
        def __init__(self, readers: dict[str, object], diagonal: bool = False) -> None:
            parts.append(list(readers))
            super().__init__(readers, diagonal)

    monkeypatch.setattr(oneshot, "GramCollector", Recorded)
    torch.manual_seed(2)
    model = _Residual()
    # stem: 36 columns, first and second: 72, head: 8; 4 bytes for each pair of columns.
    room = 4 * (36 * 36 + 72 * 72)
    reconstruct_model(model, prunables(model), Calibration(_images(), bfloat16=False, memory=room), _nothing)
    assert parts == [["stem", "first"], ["second", "head"]]
    parts.clear()
    wanda_model(model, prunables(model), Calibration(_images(), bfloat16=False, memory=room), _nothing)
    assert parts == [["head", "second", "first", "stem"]]


def test_a_sequential_of_convolutions_is_a_chain_even_if_it_works_in_place() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1),
        nn.LeakyReLU(0.5, inplace=True),
        nn.Sequential(nn.LeakyReLU(0.5, inplace=True), nn.Conv2d(8, 8, 3, padding=1)),
        nn.LeakyReLU(0.5, inplace=True),
        nn.Conv2d(8, 4, 3, padding=1),
    )
    layers, batches = prunables(model), _images()
    assert find_blocks(model, layers, batches[0]) == list(model)
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    found = reconstruct_model(model, layers, Calibration(batches, bfloat16=False), _nothing)
    # Those before it are pruned by now, so that its inputs are what it was calibrated on.
    for name in ("2.1", "4"):
        layer = layers[name]
        gram = _gram(_inputs(model, layer.module, batches))
        expected = reconstruct(layer.view.matrices(before[name]), gram, layer.pattern)
        assert torch.equal(found[name].mask, layer.view.restore(expected.mask))


def test_a_chain_that_holds_few_of_the_layers_is_not_followed() -> None:
    class Staged(_Residual):
        def __init__(self) -> None:
            super().__init__()
            self.stage = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.stage(x))

    torch.manual_seed(4)
    model = Staged()
    layers = prunables(model)
    assert find_blocks(model, layers, _images()[0]) == []
    stage = {name: layer for name, layer in layers.items() if name.startswith("stage") or name == "head"}
    assert find_blocks(model, stage, _images()[0]) == list(model.stage)


def test_the_more_a_method_knows_the_less_a_residual_network_changes() -> None:
    """On images that it was not calibrated on; the images are smooth, so that channels are correlated."""
    generator = torch.Generator().manual_seed(7)

    def images(count: int) -> Tensor:
        coarse = torch.randn(count, 1, 4, 4, generator=generator)
        return functional.interpolate(coarse, size=8, mode="bilinear")

    batches, held_out = [images(16) for _ in range(4)], images(64)
    changes = []
    for method in ("magnitude", "wanda", "sparsegpt"):
        torch.manual_seed(8)
        model = small_resnet(widths=(8, 16)).eval()
        with torch.no_grad():
            before = model(held_out)
        # A glob that fits the stem and the classifier, which stay dense otherwise.
        pruner = Pruner(model, {"?*": "2:4"})
        pruner.prune(method, None if method == "magnitude" else Calibration(batches, bfloat16=False))
        pruner.verify()
        with torch.no_grad():
            changes.append(((model(held_out) - before).norm() / before.norm()).item())
    magnitude, wanda, sparsegpt = changes
    assert sparsegpt < 0.5 * wanda < 0.5 * magnitude, changes


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize("prune", [reconstruct_model, wanda_model])
@pytest.mark.parametrize("text", ["2:4", "2:4@2", "4x1:0.5", "2:4t"])
def test_a_transformer_with_packed_projections_is_pruned_whole(prune: Callable, text: str) -> None:  # type: ignore[type-arg]
    torch.manual_seed(5)
    model = _Encoder()
    layers, batches = prunables(model, text), [torch.randn(3, 7, 16) for _ in range(4)]
    assert len(layers) == 8
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    found = prune(model, layers, Calibration(batches, bfloat16=False), _nothing)
    assert set(found) == set(layers)
    for name, layer in layers.items():
        assert layer.pattern.holds(layer.view.matrices(layer.weight.detach()).numpy()), name
        assert layer.pattern.holds(layer.view.matrices(found[name].mask).numpy()), name
        assert not torch.equal(layer.weight, before[name])
        assert 0.0 < found[name].error < 1.0


def test_packed_projections_are_three_problems() -> None:
    torch.manual_seed(6)
    attention = nn.MultiheadAttention(16, 2, batch_first=True)
    x = [torch.randn(2, 5, 16) for _ in range(3)]
    layers = prunables(attention)
    before = attention.in_proj_weight.detach().clone()
    found = reconstruct_model(attention, layers, Calibration([tuple(x)], bfloat16=False), _nothing)
    for i, source in enumerate(x):
        rows = source.flatten(0, 1)
        expected = reconstruct(
            before[16 * i : 16 * i + 16], rows.T @ rows / 10, layers["in_proj_weight"].pattern
        )
        assert torch.equal(found["in_proj_weight"].mask[16 * i : 16 * i + 16], expected.mask)
        assert (found["in_proj_weight"].weight[16 * i : 16 * i + 16] - expected.weight).abs().max() < 1e-3


@pytest.fixture
def one_process() -> Iterator[None]:
    distributed = torch.distributed
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_sharded_weights_are_refused_with_a_reason() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    model = nn.Sequential(nn.Linear(8, 8))
    mesh = init_device_mesh("cpu", (1,))
    model[0].weight = nn.Parameter(distribute_tensor(model[0].weight.detach(), mesh, [Shard(0)]))
    layers = prunables(model)
    assert input_reason(model, layers["0"]).startswith("0 is sharded over several processes")
    with pytest.raises(ValueError, match="calibrate before the model is sharded"):
        wanda_model(model, layers, Calibration([torch.randn(2, 8)], bfloat16=False), _nothing)


def test_layers_that_never_ran_are_named_and_training_mode_is_restored() -> None:
    model = _Residual().train()
    model.unused = nn.Conv2d(4, 4, 3)
    model.stem.eval()
    with pytest.raises(ValueError, match="never ran the layers unused; exclude them"):
        wanda_model(model, prunables(model), Calibration(_images(), bfloat16=False, memory=1), _nothing)
    assert model.training
    assert not model.stem.training
    assert not any(module._forward_pre_hooks for module in model.modules())

"""Which channels may change places, on small nets; and that a permuted model computes the same."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from openwork.patterns.pattern import Pattern
from openwork.sparsity import Calibration
from openwork.sparsity.masks.ends import EVERY
from openwork.sparsity.masks.mask import magnitude_mask
from openwork.sparsity.permutation import Effort, PermutationOptions, PermutationReport, permute
from openwork.sparsity.permutation.graph import channel_graph

QUICK = PermutationOptions(effort=Effort(least=6, most=6))
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def heavy(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with heavy-tailed weights and norms that differ from channel to channel."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            tails = torch.randn((3, *parameter.shape), generator=generator).square().mean(dim=0).sqrt()
            fan = max(1, parameter[0].numel() if parameter.ndim > 1 else 1)
            parameter.copy_(noise / tails / fan**0.5)
    return model


def permuted(
    model: nn.Module, inputs: Tensor | tuple[Tensor, ...], pattern: str = "2:4", **others: object
) -> PermutationReport:
    """Permute, and check by single precision outputs, names and shapes that nothing else changed."""
    heavy(model)
    model.eval()
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    before, names = _outputs(model, args), {name: t.shape for name, t in model.state_dict().items()}
    report = permute(model, args, pattern, options=QUICK, **others)  # type: ignore[arg-type]
    after = _outputs(model, args)
    for one, other in zip(before, after, strict=True):
        # A reordered sum of at most 2^9 terms in single precision, through a few layers.
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(one.abs().max()))
    assert {name: t.shape for name, t in model.state_dict().items()} == names
    assert report.after >= report.before
    return report


def _outputs(model: nn.Module, args: tuple[Tensor, ...]) -> list[Tensor]:
    with torch.no_grad():
        result = model(*args)
    return list(result) if isinstance(result, tuple) else [result]


def free(report: PermutationReport) -> dict[str, bool]:
    """Which weights keep more after than before."""
    return {layer.name: layer.after > layer.before for layer in report.layers}


class Net(nn.Module):
    """Modules by name and a forward function."""

    def __init__(self, forward: Callable[..., Tensor], **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self._function = forward

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._function(self, *inputs)


def conv(inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)


IMAGE = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def test_a_chain_moves_and_its_first_input_does_not() -> None:
    net = nn.Sequential(
        conv(3, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        conv(16, 16, 3),
        nn.Flatten(1),
        nn.Linear(144, 8),
    )
    report = permuted(net, IMAGE, include=EVERY, exclude=("0",))
    assert free(report) == {"4.weight": True, "6.weight": False}
    assert report.applied == 1
    first = channel_graph(net.eval(), (IMAGE,)).reasons["0.weight"]
    assert first == "They are the model's inputs, which keep their order."


def test_a_residual_joins_its_makers_and_readers() -> None:
    net = Net(
        lambda m, x: m.last(functional.relu(m.stem(x) + m.norm(m.inner(functional.relu(m.stem(x)))))),
        stem=conv(3, 16),
        inner=conv(16, 16, 3),
        norm=nn.BatchNorm2d(16),
        last=conv(16, 4),
    )
    report = permuted(net, IMAGE)
    (only,) = [each for each in report.classes if each.applied]
    assert only.layers == ("inner.weight", "last.weight")
    assert only.channels == 16


def test_a_concatenation_moves_each_part_by_itself() -> None:
    net = Net(
        lambda m, x: m.last(torch.cat([m.one(x), m.two(x)], dim=1)),
        one=conv(3, 16),
        two=conv(3, 12),
        last=conv(28, 8),
    )
    report = permuted(net, IMAGE)
    assert sorted(each.channels for each in report.classes if each.applied) == [12, 16]


def test_grouped_convolutions_move_within_their_groups() -> None:
    net = nn.Sequential(conv(3, 32), conv(32, 32, 3, groups=2), nn.ReLU(), conv(32, 8))
    report = permuted(net, IMAGE, exclude=("0",))
    assert sorted(each.channels for each in report.classes) == [16, 16, 16, 16]
    assert all(free(report).values())


def test_depthwise_convolutions_go_along() -> None:
    net = nn.Sequential(
        conv(3, 16), conv(16, 16, 3, groups=16), nn.BatchNorm2d(16), nn.Hardswish(), conv(16, 8)
    )
    report = permuted(net, IMAGE, exclude=("0", "1"))
    assert free(report) == {"4.weight": True}
    multiplied = nn.Sequential(conv(3, 16), nn.Conv2d(16, 32, 3, groups=16), nn.ReLU6(), conv(32, 8))
    assert permuted(multiplied, IMAGE).reason == ""


def test_squeeze_and_excitation() -> None:
    net = Net(
        lambda m, x: m.last(
            m.stem(x) * torch.sigmoid(m.up(functional.relu(m.down(m.stem(x).mean((2, 3), keepdim=True)))))
        ),
        stem=conv(3, 16),
        down=conv(16, 16),
        up=conv(16, 16),
        last=conv(16, 8),
    )
    assert permuted(net, IMAGE, exclude=("stem",)).applied == 2


@pytest.mark.parametrize("groups", [1, 2, 4, 16])
def test_group_norm_keeps_its_groups(groups: int) -> None:
    net = nn.Sequential(conv(3, 16), nn.GroupNorm(groups, 16), nn.SiLU(), conv(16, 8))
    report = permuted(net, IMAGE, exclude=("0",))
    # Four groups of four channels: no whole group may exchange a channel with another one.
    assert free(report) == {"3.weight": groups != 4}


def test_transposed_convolutions() -> None:
    net = nn.Sequential(
        nn.ConvTranspose2d(3, 16, 2), nn.ReLU(), nn.ConvTranspose2d(16, 12, 3), nn.ReLU(), conv(12, 8)
    )
    assert free(permuted(net, IMAGE, exclude=("0",))) == {"2.weight": True, "4.weight": True}


@pytest.mark.parametrize("pattern", ["2:4", "2:4@2", "2:4@4", "1:4", "4:8", "2:8@2"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_moves_within_a_head(pattern: str, batch_first: bool) -> None:
    net = nn.TransformerEncoderLayer(32, 2, 64, batch_first=batch_first)
    report = permuted(net, torch.rand(3, 5, 32), pattern)
    # Two heads of values, and the inner channels; queries and keys too where masks are shared among them.
    assert len(report.classes) == (5 if "@" in pattern else 3)
    assert free(report)["self_attn.out_proj.weight"]
    assert free(report)["linear2.weight"]


def test_cross_attention_with_weights_returned() -> None:
    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(32, 2, batch_first=True)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            mixed, weights = self.attention(x, y, y)
            return torch.cat([mixed.flatten(1), weights.flatten(1)], dim=1)

    report = permuted(Cross(), (torch.rand(2, 4, 32), torch.rand(2, 6, 32)), "2:4@2")
    assert free(report) == {"attention.in_proj_weight": True, "attention.out_proj.weight": True}


def test_a_shared_module_moves_once() -> None:
    net = Net(
        lambda m, x: m.last(m.both(functional.relu(m.both(m.first(x))))),
        first=nn.Linear(8, 16),
        both=nn.Linear(16, 16),
        last=nn.Linear(16, 8),
    )
    report = permuted(net, torch.rand(3, 8))
    (moved,) = [each for each in report.classes if each.applied]
    assert moved.layers == ("both.weight", "last.weight")


def test_tied_embeddings_move_with_the_head() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.places = nn.Embedding(20, 16), nn.Parameter(torch.zeros(12, 16))
            self.inner, self.norm = nn.Linear(16, 16), nn.LayerNorm(16)
            self.head = nn.Linear(16, 20, bias=False)
            self.head.weight = self.table.weight

        def forward(self, ids: Tensor) -> Tensor:
            states = self.table(ids) + self.places[: ids.shape[1]]
            return self.head(self.norm(states + self.inner(states)))

    net, ids = Tied(), torch.arange(10).view(2, 5)
    assert permuted(net, ids).applied == 1
    assert net.head.weight is net.table.weight
    # The rows of the table of places that the example did not reach moved with those it did.
    longer, fresh = torch.arange(12).view(1, 12), heavy(Tied()).eval()
    torch.testing.assert_close(net(longer), fresh(longer), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (
            lambda m, x: m.two(m.one(x).view(x.shape[0], 4, 4).transpose(1, 2).reshape(-1, 16).cumsum(1)),
            "cumsum",
        ),
        (lambda m, x: m.two(m.one(x) * torch.arange(16.0)), "values that keep their order, in mul"),
        (lambda m, x: m.two(m.one(x)) + m.one(x)[:, :8], "outputs"),
    ],
)
def test_what_defeats_it_is_a_reason(forward: Callable[..., Tensor], words: str) -> None:
    net = Net(forward, one=nn.Linear(8, 16), two=nn.Linear(16, 8))
    report = permuted(net, torch.rand(3, 8))
    (row,) = [layer for layer in report.layers if layer.name == "two.weight"]
    assert words in row.reason


def test_a_transposed_view_of_channels_is_followed() -> None:
    """A reshape that shuffles channels still moves them; whatever is claimed is compared."""
    net = Net(
        lambda m, x: m.two(m.one(x).view(-1, 4, 4).transpose(1, 2).reshape(-1, 16)),
        one=nn.Linear(8, 16),
        two=nn.Linear(16, 8),
    )
    assert free(permuted(net, torch.rand(3, 8)))["two.weight"]


def test_an_untraceable_model_is_a_reason() -> None:
    net = Net(
        lambda m, x: m.two(m.one(x)) if x.sum() > 0 else m.one(x)[:, :8],
        one=nn.Linear(8, 16),
        two=nn.Linear(16, 8),
    )
    before = copy.deepcopy(net.state_dict())
    report = permute(net, torch.rand(3, 8))
    assert "torch.export cannot trace the model" in report.reason
    assert str(report).startswith("No channel was moved.")
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_weights_that_only_training_reads_are_a_reason() -> None:
    """An auxiliary head would read channels that have moved."""

    def forward(m: Net, x: Tensor) -> Tensor:
        inner = m.one(x)
        return m.two(inner) + m.auxiliary(inner) if m.training else m.two(inner)

    net = heavy(Net(forward, one=nn.Linear(8, 16), two=nn.Linear(16, 8), auxiliary=nn.Linear(16, 8)))
    report = permute(net, torch.rand(3, 8), options=QUICK)
    assert report.reason.startswith("In evaluation mode the model does not read auxiliary.weight, so nobody")
    trusted = PermutationOptions(effort=QUICK.effort, trust_unreached=True)
    assert permute(net, torch.rand(3, 8), options=trusted).applied == 1


def test_a_wrong_move_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the analysis wrong about a tensor, the outputs would tell, and only the wrong class is undone."""
    from openwork.sparsity.permutation import permutation as module

    real = module.moves

    def wrong(*arguments: object) -> list[object]:
        found = real(*arguments)
        return [move for move in found if move.use.tensor != "0.bias"]

    monkeypatch.setattr(module, "moves", wrong)
    net = heavy(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)))
    before = copy.deepcopy(net.state_dict())
    report = permute(net, torch.rand(3, 8), options=QUICK)
    assert [each.applied for each in report.classes] == [False, True]
    assert "it was put back" in report.classes[0].reason
    assert torch.equal(net[0].weight, before["0.weight"])
    assert not torch.equal(net[2].weight, before["2.weight"])


def test_an_interruption_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    from openwork.sparsity.permutation import permutation as module

    calls = iter([module.search])

    def interrupted(*arguments: object) -> Tensor:
        try:
            return next(calls)(*arguments)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(module, "search", interrupted)
    net = heavy(nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4))).train()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(KeyboardInterrupt):
        permute(net, torch.rand(3, 8), options=QUICK)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net.training


def test_optimizer_and_dense_companions_move_along() -> None:
    net = heavy(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.rand(3, 8)).sum().backward()
    optimizer.step()
    for layer in (net[0], net[2]):
        layer.register_buffer("weight_dense", layer.weight.detach().clone())
        layer.register_buffer("weight_mask", torch.ones_like(layer.weight, dtype=torch.bool))
        optimizer.state[layer.weight]["exp_avg"].copy_(layer.weight.detach())
    before = net[2].weight.detach().clone()
    assert permute(net, torch.rand(3, 8), optimizer=optimizer, options=QUICK).applied == 1
    assert not torch.equal(net[2].weight, before)
    for layer in (net[0], net[2]):
        assert torch.equal(layer.weight_dense, layer.weight)
        assert torch.equal(optimizer.state[layer.weight]["exp_avg"], layer.weight)


def test_a_pruned_layer_is_refused() -> None:
    net = heavy(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)))
    net[2].register_buffer("weight_mask", magnitude_mask(net[2].weight, Pattern.parse("2:4")))
    report = permute(net, torch.rand(3, 8), options=QUICK)
    assert [each.reason for each in report.classes] == [
        "2.weight is pruned already; its mask would no longer keep to the pattern."
    ]


def test_weights_that_are_not_finite_are_refused() -> None:
    net = heavy(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)))
    net[2].weight.data[0, 0] = torch.nan
    report = permute(net, torch.rand(3, 8), options=QUICK)
    assert [each.reason for each in report.classes] == ["2.weight holds NaN or infinity."]


def test_bad_arguments() -> None:
    net = nn.Sequential(nn.Linear(8, 8))
    for pattern in ("4x1:0.5", "2:4t"):
        with pytest.raises(ValueError, match=f'like "2:4" or "2:4@2", but the pattern is "{pattern}"'):
            permute(net, torch.rand(1, 8), pattern)
    with pytest.raises(ValueError, match='"magnitude", "energy" or "output"'):
        PermutationOptions(score="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='"both", "inputs" or "outputs", but they are \'rows\''):
        PermutationOptions(sides="rows")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='The score "output" of a permutation needs calibration inputs'):
        PermutationOptions(score="output")
    with pytest.raises(ValueError, match='The score "energy" of a permutation takes no calibration inputs'):
        PermutationOptions(score="energy", calibration=Calibration([torch.rand(1, 8)]))


def test_kept_scores_are_those_of_the_masks() -> None:
    """The report's figures against masks made for the permuted weights, energy and magnitude."""
    for score, power in (("magnitude", 1), ("energy", 2)):
        net = heavy(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)))
        report = permute(net, torch.rand(3, 8), options=PermutationOptions(score=score, effort=QUICK.effort))  # type: ignore[arg-type]
        for row, layer in zip(report.layers, (net[0], net[2]), strict=True):
            values = layer.weight.detach().double().abs() ** power
            kept = values[magnitude_mask(layer.weight, Pattern.parse("2:4"))].sum() / values.sum()
            # Sums of 128 float32 scores: at most 128 roundings of 2^-24.
            assert row.after == pytest.approx(float(kept), rel=128 * 2**-24)


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "ConvNextForImageClassification", "LlamaForCausalLM"])
def test_other_architectures_of_transformers(name: str) -> None:
    """Weights stored [in, out] and packed projections; channels-last norms and layer scales; rotations."""
    transformers = pytest.importorskip("transformers")
    ids = {"input_ids": torch.arange(12).view(2, 6), "use_cache": False}
    cases = {
        "GPT2LMHeadModel": (
            {"n_layer": 1, "n_embd": 32, "n_head": 2, "vocab_size": 50, "n_positions": 32},
            ids,
        ),
        "ConvNextForImageClassification": (
            {"hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "num_labels": 3},
            torch.rand(1, 3, 64, 64),
        ),
        "LlamaForCausalLM": (
            {
                "hidden_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "intermediate_size": 64,
                "vocab_size": 50,
            },
            ids,
        ),
    }
    sizes, inputs = cases[name]
    kind = getattr(transformers, name)
    tokens = {} if name.startswith("Conv") else {"bos_token_id": 1, "eos_token_id": 2}
    report = permute(heavy(kind(kind.config_class(**sizes, **tokens))), inputs, "2:4@2", options=QUICK)
    assert report.applied == len(report.classes) >= 3
    assert report.after > report.before
    assert report.difference <= report.tolerance


def test_transformers_bert() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        num_hidden_layers=1,
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=2,
        vocab_size=50,
        num_labels=3,
    )
    model = heavy(transformers.BertForSequenceClassification(config)).eval()
    ids = torch.arange(12).view(2, 6)
    report = permute(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, options=QUICK)
    assert report.reason == ""
    inner = [layer for layer in report.layers if ".layer.0." in layer.name]
    # With a classifier on top the hidden states themselves may be reordered, through embeddings and all
    # norms.
    assert len(inner) == 6
    assert all(layer.after > layer.before for layer in inner)
    assert np.isfinite(report.difference)

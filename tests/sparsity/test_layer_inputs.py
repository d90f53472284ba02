"""What every kind of layer sees, against the layer's own output and against torch's unfold."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from openwork.sparsity.calibrated.gram import GramCollector
from openwork.sparsity.calibrated.layer_inputs import convolution_windows, readers
from prunables import prunables

KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "plain": (lambda: nn.Conv2d(8, 6, 3), (2, 8, 7, 6)),
    "strided": (
        lambda: nn.Conv2d(8, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
        (2, 8, 9, 7),
    ),
    "grouped": (lambda: nn.Conv2d(8, 6, 3, padding=1, groups=2), (2, 8, 5, 5)),
    "depthwise": (lambda: nn.Conv2d(6, 12, 3, groups=6), (1, 6, 5, 5)),
    "same": (lambda: nn.Conv2d(4, 4, (4, 3), padding="same"), (2, 4, 6, 5)),
    "valid": (lambda: nn.Conv2d(4, 4, 3, padding="valid"), (2, 4, 6, 5)),
    "reflected": (lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), (2, 4, 6, 5)),
    "circular": (lambda: nn.Conv1d(4, 4, 5, padding=2, padding_mode="circular"), (2, 4, 9)),
    "unbatched": (lambda: nn.Conv2d(4, 5, 3, padding=1), (4, 6, 5)),
    "one dimension": (lambda: nn.Conv1d(6, 4, 3, stride=2, groups=2), (3, 6, 11)),
    "three dimensions": (lambda: nn.Conv3d(4, 3, (2, 3, 1), padding=(0, 1, 0)), (2, 4, 4, 5, 3)),
    "transposed": (
        lambda: nn.ConvTranspose2d(4, 6, (3, 2), stride=(2, 3), padding=(1, 0), output_padding=(1, 2)),
        (2, 4, 5, 4),
    ),
    "transposed, grouped": (
        lambda: nn.ConvTranspose2d(4, 6, 3, groups=2, dilation=2, padding=1),
        (1, 4, 5, 4),
    ),
    "transposed, cropped": (lambda: nn.ConvTranspose1d(4, 3, 3, stride=2, padding=3), (2, 4, 7)),
    "transposed, three dimensions": (lambda: nn.ConvTranspose3d(2, 4, 2, stride=2), (1, 2, 3, 2, 3)),
}


def _output_by_windows(module: nn.Module, source: Tensor) -> Tensor:
    """The module's output without bias, [N, out, *positions], as `layer_inputs` says that it is computed."""
    layer = next(iter(prunables(module).values()))
    reader = readers(module, layer)[0]
    windows = reader.windows(source)
    positions = windows.shape[: -reader.trailing]
    rows = windows.reshape(*positions, reader.groups, -1, windows.shape[-1])
    stack = layer.view.matrices(layer.weight.detach())
    split = stack.reshape(-1, reader.groups, *stack.shape[1:])
    output = torch.einsum("...gti,tgoi->...go", rows.double(), split.double()).flatten(-2)
    if reader.turned:
        output = output.flip(*range(1, len(positions)))
    return output.movedim(-1, 1)


# torch warns that the asymmetric border of an even kernel may cost it a copy.
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("kind", KINDS)
def test_the_windows_times_the_matrices_are_the_output(kind: str) -> None:
    make, shape = KINDS[kind]
    torch.manual_seed(0)
    module, source = make(), torch.randn(shape)
    with torch.no_grad():
        expected = module(source)
        if module.bias is not None:
            expected = expected - module.bias.view(-1, *[1] * len(module.kernel_size))
    got = _output_by_windows(module, source).float()
    got = got if source.ndim == len(module.kernel_size) + 2 else got[0]
    assert got.shape == expected.shape
    # At most 72 products of numbers below 4 in size, summed in float32: 72 * 6e-8 * 4.
    assert (got - expected).abs().max() < 2e-5


def test_the_windows_are_torch_s_unfold() -> None:
    torch.manual_seed(1)
    module, source = nn.Conv2d(8, 6, (3, 2), stride=2, padding=1, dilation=(2, 1)), torch.randn(2, 8, 9, 7)
    columns = functional.unfold(source, (3, 2), dilation=(2, 1), padding=1, stride=2)
    # torch has the channels outermost: [N, C * taps, positions].
    expected = columns.view(2, 8, 6, -1).permute(0, 3, 2, 1).reshape(-1, 48)
    assert torch.equal(convolution_windows(module, source).reshape(-1, 48), expected)


def _collected(
    model: nn.Module, *inputs: Tensor, keep: Tensor | None = None, **keywords: object
) -> GramCollector:
    found = {
        f"{name}[{i}]": reader
        for name, layer in prunables(model, "1:2").items()
        for i, reader in enumerate(readers(model, layer))
    }
    collector = GramCollector(found)
    with collector.listening(), torch.no_grad():
        collector.begin(keep)
        model.eval()(*inputs, **keywords)
    return collector


def _near(got: Tensor | None, expected: Tensor) -> bool:
    """Means of products of numbers of size 1 in float32: a few epsilons of the largest entry, times rows."""
    assert got is not None
    return bool((got - expected).abs().max() < 1e-5 * expected.abs().max())


def test_a_grouped_convolution_has_a_gram_for_each_group() -> None:
    torch.manual_seed(2)
    module, source = nn.Conv2d(8, 6, 3, padding=1, groups=2), torch.randn(3, 8, 5, 4)
    gram = _collected(module, source).gram("[0]")
    assert gram is not None
    for group in range(2):
        columns = functional.unfold(source[:, group * 4 : group * 4 + 4], 3, padding=1)
        rows = columns.view(3, 4, 9, -1).permute(0, 3, 2, 1).reshape(-1, 36)
        assert _near(gram[group], rows.T @ rows / len(rows))


def test_pieces_do_not_change_the_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    module, source = nn.Conv2d(4, 6, 3, padding=1), torch.randn(3, 4, 6, 5)
    keep = torch.rand(3, 6, 5) > 0.4
    whole, some = _collected(module, source), _collected(module, source, keep=keep)
    rows = convolution_windows(module, source)[keep].reshape(-1, 36)
    assert _near(some.gram("[0]"), rows.T @ rows / len(rows))
    # A line of positions has 5 * 36 elements: pieces of several samples, lines, and single positions.
    for size in (36 * 65, 36 * 11, 36 * 2, 1):
        monkeypatch.setattr("openwork.sparsity.calibrated.gram._PIECE", size)
        assert _near(_collected(module, source).gram("[0]"), whole.grams["[0]"])
        assert _near(_collected(module, source, keep=keep).gram("[0]"), some.grams["[0]"])


class _Sharing(nn.Module):
    """Two convolutions of one kind and one of another read x; then x is changed in place and read again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.other, self.last = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).mean() + self.second(x).mean() + self.other(x).mean()
        x.mul_(2.0)
        return y + self.last(x).mean()


def test_only_layers_that_see_the_same_share_a_gram() -> None:
    torch.manual_seed(4)
    model = _Sharing()
    collector = _collected(model, torch.randn(2, 4, 5, 5))
    assert collector.groups == {
        "first[0]": ["first[0]", "second[0]"],
        "other[0]": ["other[0]"],
        "last[0]": ["last[0]"],
    }
    assert torch.equal(collector.grams["last[0]"], 4.0 * collector.grams["first[0]"])


@pytest.mark.parametrize("batch_first", [True, False])
def test_an_attention_s_projections_see_query_key_value_and_the_heads_outputs(batch_first: bool) -> None:
    torch.manual_seed(5)
    attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
    query, key, value = torch.randn(2, 5, 8), torch.randn(2, 7, 8), torch.randn(2, 7, 8)
    given = [x if batch_first else x.transpose(0, 1) for x in (query, key, value)]
    collector = _collected(attention, *given)
    for i, source in enumerate((query, key, value)):
        rows = source.flatten(0, 1)
        assert _near(collector.gram(f"in_proj_weight[{i}]"), (rows.T @ rows / len(rows))[None])
    heads = _heads(attention, query, key, value).flatten(0, 1)
    assert _near(collector.gram("out_proj[0]"), (heads.T @ heads / len(heads))[None])


def _heads(attention: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The outputs of all heads side by side, by the textbook."""
    weights, biases = attention.in_proj_weight.detach().chunk(3), attention.in_proj_bias.detach().chunk(3)
    split = [
        functional.linear(x, w, b).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for x, w, b in zip((query, key, value), weights, biases, strict=True)
    ]
    q, k, v = split
    shares = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
    return (shares @ v).transpose(1, 2).flatten(-2)


def test_self_attention_gathers_one_gram_over_the_rows_that_count() -> None:
    torch.manual_seed(6)
    attention, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(2, 5, 8)
    keep = torch.arange(10).view(2, 5) % 3 > 0
    collector = _collected(attention, x, keep=keep, key=x, value=x, need_weights=False)
    names = [f"in_proj_weight[{i}]" for i in range(3)]
    assert collector.groups == {names[0]: names, "out_proj[0]": ["out_proj[0]"]}
    assert _near(collector.gram(names[2]), (x[keep].T @ x[keep] / keep.sum())[None])


def test_projections_of_other_widths_see_their_own_input() -> None:
    torch.manual_seed(7)
    attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, batch_first=True)
    x = [torch.randn(2, 5, width) for width in (8, 6, 4)]
    collector = _collected(attention, *x)
    for name, source in zip("qkv", x, strict=True):
        rows = source.flatten(0, 1)
        assert _near(collector.gram(f"{name}_proj_weight[0]"), (rows.T @ rows / len(rows))[None])


def test_a_transformer_layer_is_seen_inside() -> None:
    """torch's fused path would never call the layers; hooks keep it off."""
    torch.manual_seed(8)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    collector = _collected(layer, torch.randn(2, 5, 8))
    assert set(collector.groups) == {
        "self_attn.in_proj_weight[0]",
        "self_attn.out_proj[0]",
        "linear1[0]",
        "linear2[0]",
    }


def test_a_diagonal_is_the_gram_s() -> None:
    torch.manual_seed(9)
    module, source = nn.Conv2d(8, 6, 3, groups=2), torch.randn(3, 8, 5, 4)
    found = {"it": readers(module, next(iter(prunables(module, "1:2").values())))[0]}
    norms = GramCollector(found, diagonal=True)
    with norms.listening():
        norms.begin(None)
        module(source)
    gram = _collected(module, source).gram("[0]")
    assert gram is not None
    assert _near(norms.gram("it"), gram.diagonal(dim1=1, dim2=2))


def test_the_rows_that_count_are_the_output_s_positions_of_a_transposed_convolution_too() -> None:
    torch.manual_seed(10)
    module, source = nn.ConvTranspose1d(4, 3, 3, padding=1), torch.randn(2, 4, 6)
    keep = torch.tensor([[True, True, False, False, False, True], [False] * 6])
    # Stride 1: output p meets input p + 1 - tap.
    padded = functional.pad(source, (1, 1))
    rows = torch.stack([torch.cat([padded[0, :, p + 2 - tap] for tap in range(3)]) for p in (0, 1, 5)])
    # The collector's taps run as the weight's do.
    assert _near(_collected(module, source, keep=keep).gram("[0]"), (rows.T @ rows / 3)[None])

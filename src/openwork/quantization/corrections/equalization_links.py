"""Which layers follow each other so that a factor for each channel can move from one to the other."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.conv import _ConvNd

from openwork.quantization.corrections.batch_norm import shared_parameters
from openwork.quantization.corrections.channel_scaling import Link
from openwork.quantization.fake_quantization.modules import Quantized
from openwork.quantization.trace.recording import Event, Recording, Seen

ELEMENTWISE = ("relu", "relu_", "leaky_relu", "leaky_relu_", "prelu")
"""f(s x) = s f(x) for positive s, number by number."""

POOLING = tuple(
    f"{kind}{d}d"
    for d in (1, 2, 3)
    for kind in ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool")
)
"""The same for each channel of a convolution's output."""

SHAPING = ("flatten", "view", "reshape", "squeeze")
"""Keep the order of the numbers; from a convolution to a Linear they make each channel a run of inputs."""

IDLE = ("dropout", "dropout_", "dropout2d", "feature_dropout", "alpha_dropout", "contiguous", "detach")
"""Do nothing in evaluation mode, and commute with factors in training."""

CLIPPING = ("relu6", "hardtanh", "hardtanh_", "clamp", "clamp_", "clip", "clip_", "hardswish", "hardsigmoid")

Refused = tuple[str, str, str]
"""First layer, second layer, reason."""


def find_links(model: nn.Module, recording: Recording) -> tuple[list[Refused], list[Link]]:
    """Every two layers in a row of which a factor can move, and the others with the reason."""
    finder = _Finder(model, recording)
    refused: list[Refused] = []
    links: list[Link] = []
    for event in finder.layers:
        first = finder.source(event)
        if first is None:
            continue
        found = finder.link(first, event)
        if isinstance(found, Link):
            links.append(found)
        else:
            refused.append((first.owner, event.owner, found))
    return refused, links


class _Finder:
    def __init__(self, model: nn.Module, recording: Recording) -> None:
        self.model, self.recording = model, recording
        self.layers = [e for e in recording.events if e.kind == "weighted" and e.index < 0 and e.inputs[0]]
        self._made = {e.output.serial: e for e in self.layers if e.output is not None}
        self._fixed = len([*model.parameters(), *model.buffers()])
        self._calls: dict[str, int] = {}
        for event in self.layers:
            self._calls[event.owner] = self._calls.get(event.owner, 0) + 1

    def source(self, event: Event) -> Event | None:
        """The layer that ran last of those that an event's input comes from."""
        read = event.inputs[0]
        assert read is not None
        before = [serial for serial in self._made if read.ancestors >> serial & 1]
        return self._made[max(before)] if before else None

    def link(self, first: Event, second: Event) -> Link | str:
        """The link of two layers, or why there is none."""
        for event in (first, second):
            if reason := self._unfit(event):
                return reason
        given, read = first.output, second.inputs[0]
        assert given is not None
        assert read is not None
        pools = isinstance(self.model.get_submodule(first.owner), _ConvNd)
        return self._way(given, read, second.owner, pools) or self._joined(first, second, given, read)

    def _unfit(self, event: Event) -> str | None:
        layer = self.model.get_submodule(event.owner)
        if self._calls[event.owner] != 1:
            return f"{event.owner} runs {self._calls[event.owner]} times in the example"
        if isinstance(layer, Quantized):
            return f"{event.owner} is quantized already"
        if shared_parameters(self.model, layer):
            return f"other layers share the parameters of {event.owner}"
        return None

    def _way(self, given: Seen, read: Seen, second: str, pools: bool) -> str | None:
        """Why some tensor on the way from `given` to `read` does not carry a factor; None if all do."""
        way = [s for s in range(read.serial + 1) if read.ancestors >> s & 1 and not given.ancestors >> s & 1]
        for serial in sorted({given.serial, *way}):
            readers = [r for r in self.recording.consumers.get(serial, []) if r not in IDLE]
            last = serial == read.serial
            if serial < self._fixed:
                readers = readers[:1]
            if len(readers) != 1:
                return f"{' and '.join(readers) or 'nothing'} read what lies between, and only one reader may"
            if last and readers[0] != second:
                return f"{readers[0]} reads what lies between, and not {second} alone"
            if not last and (reason := _refusal(readers[0].lstrip("_"), pools)):
                return reason
        return None

    def _joined(self, first: Event, second: Event, given: Seen, read: Seen) -> Link | str:
        one, other = (self.model.get_submodule(event.owner) for event in (first, second))
        convolutions = isinstance(one, _ConvNd), isinstance(other, _ConvNd)
        if convolutions == (True, False):
            if len(given.shape) != len(one.kernel_size) + 2 or len(read.shape) != 2:  # type: ignore[arg-type]
                return "the pixels are not flattened sample by sample"
            repeat, rest = divmod(read.shape[1], given.shape[1])
            return "the channels are not whole after flattening" if rest else _link(first, second, repeat)
        if convolutions == (False, True):
            return "the features of a Linear become pixels"
        if convolutions == (False, False) and given.shape != read.shape:
            return f"the shape changes between, from {list(given.shape)} to {list(read.shape)}"
        if convolutions == (True, True) and _channels(one, given) != _channels(other, read):
            return f"the channels change between, from {list(given.shape)} to {list(read.shape)}"
        return _link(first, second, 1)


def _link(first: Event, second: Event, repeat: int) -> Link:
    return Link(first.owner, second.owner, repeat)


def _channels(layer: nn.Module, seen: Seen) -> tuple[int, int]:
    assert isinstance(layer, _ConvNd)
    return len(seen.shape), seen.shape[-1 - len(layer.kernel_size)]


def _refusal(function: str, pools: bool) -> str | None:
    if function in (*ELEMENTWISE, *SHAPING) or (pools and function in POOLING):
        return None
    if function in CLIPPING:
        return f"{function} clips at a fixed number, which the factors would move"
    return f"{function} lies between, for which f(s x) = s f(x) is not known to hold for each channel"

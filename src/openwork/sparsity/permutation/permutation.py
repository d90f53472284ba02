"""Channel permutation: the model computes the same, and an N:M pattern keeps more of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, get_args

import torch
from torch import Tensor, nn

from openwork.patterns.pattern import GroupPattern, Pattern
from openwork.sparsity.calibrated.oneshot import Calibration
from openwork.sparsity.masks.ends import ends, names
from openwork.sparsity.permutation.equivalence import Witness
from openwork.sparsity.permutation.graph import (
    ChannelClass,
    ChannelGraph,
    channel_graph,
    tensors,
    touched_names,
)
from openwork.sparsity.permutation.importance import output_importance
from openwork.sparsity.permutation.moves import IMPORTANCE, MASK, Move, Store, counted, move_optimizer, moves
from openwork.sparsity.permutation.problem import Effort
from openwork.sparsity.permutation.report import ClassOutcome, LayerOutcome, PermutationReport
from openwork.sparsity.permutation.scores import Layers, Posed, Score, Sides, pose
from openwork.sparsity.permutation.search import search
from openwork.support.batches import evaluating
from openwork.support.numbers import whole_number
from openwork.support.progress import progress_bar


@dataclass(frozen=True)
class PermutationOptions:
    """score : what a good order keeps much of: "magnitude" (sum of |w|, ASP's measure), "energy" (sum of
    w^2), or "output", what the layers' outputs on `calibration` would lose, w^2 / [H^-1]_jj with H the second
    moments of a layer's inputs, all layers counting alike.
    sides : whose scores count in the search: "inputs" permutes for the layers that read the channels alone,
    "outputs" clusters the channels that share a mask in the layers that make them, "both" decides for both
    together. Whatever it is, what is accepted raises the sum over both.
    effort : of the search. passes : over all classes, where shared masks couple them. progress : show a
    bar. trust_unreached : go on although some weights are not read in evaluation mode (auxiliary heads,
    unused experts); they stay as they are.
    """

    score: Score = "magnitude"
    sides: Sides = "both"
    calibration: Calibration | None = None
    effort: Effort = field(default_factory=Effort)
    passes: int = 2
    trust_unreached: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        if self.score not in get_args(Score):
            raise ValueError(
                f'The score of a permutation is "magnitude", "energy" or "output", but it is {self.score!r}.'
            )
        if self.sides not in get_args(Sides):
            raise ValueError(
                f'The sides of a permutation are "both", "inputs" or "outputs", but they are {self.sides!r}.'
            )
        if (self.score == "output") != (self.calibration is not None):
            need = "needs calibration inputs" if self.calibration is None else "takes no calibration inputs"
            raise ValueError(
                f'The score "{self.score}" of a permutation {need}; calibration=Calibration(...) goes with '
                '"output" alone.'
            )
        if not isinstance(self.effort, Effort):
            raise TypeError(f"The effort of a permutation is an Effort(...), but it is {self.effort!r}.")
        whole_number(self.passes, "The number of passes of a permutation")
        for name in ("trust_unreached", "progress"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} is True or False, but it is {getattr(self, name)!r}.")


def permute(
    model: nn.Module,
    example_inputs: Tensor | tuple[Any, ...] | Mapping[str, Any],
    pattern: Pattern | str = "2:4",
    optimizer: torch.optim.Optimizer | None = None,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    options: PermutationOptions | None = None,
) -> PermutationReport:
    """Put a dense model's channels into an order in which `pattern` keeps more of its weights;
    call it before pruning.

    The channels that layers share are found by exporting the model; parameters, buffers and the optimizer's
    state are changed in place under their names, and the outputs on `example_inputs` are compared before
    and after: they are equal but for rounding, or everything is put back. What cannot be moved is in the
    report with its reason.

    model : in any mode, traced and compared in evaluation mode. example_inputs : a tensor, the positional
    inputs, or inputs by name. pattern : N:M or N:M@V. optimizer : whose state moves along. include, exclude
    : shell-style patterns of the names of modules whose kept score counts; exclude wins, and the ends of a
    network that reads images count only where they are named, as in the pruner.
    Raises ValueError for another kind of pattern or a distributed (DTensor) model.
    Source: Pool & Yu 2021, "Channel Permutations for N:M Sparsity"; the search is `search.py`'s own.
    """
    start = time.perf_counter()
    options = PermutationOptions() if options is None else options
    if not isinstance(options, PermutationOptions):
        raise TypeError(f"Options are PermutationOptions(...), but they are {options!r}.")
    chosen = _group_pattern(pattern)
    _refuse_distributed(model)
    args, kwargs = _inputs(example_inputs)
    report = PermutationReport(str(chosen), options.score)
    with evaluating(model):
        try:
            graph = channel_graph(model, args, kwargs)
        except Exception as error:  # torch.export raises many kinds; each means the same here
            summary = str(error).strip().splitlines()
            return replace(
                report,
                reason=f"torch.export cannot trace the model: {type(error).__name__}: "
                f"{summary[0] if summary else 'it gives no message'}",
            )
        if graph.unreached and not options.trust_unreached:
            return replace(report, reason=_unreached_reason(graph.unreached))
        meant = _meant(model, graph, chosen, include, exclude)
        if not meant:
            return replace(report, reason=_unmeant_reason(chosen))
        layers = Layers(
            meant,
            graph.consumers,
            chosen,
            options.score,
            options.sides,
            output_importance(model, meant, chosen, options.calibration) if options.calibration else {},
        )
        work = _Work(model, graph, layers, options)
        witness = Witness(model, args, kwargs, graph.length, graph.lowered)
        report = work.run(report, witness)
    if optimizer is not None:
        move_optimizer(optimizer, model, work.moved)
    return replace(report, seconds=time.perf_counter() - start)


def _group_pattern(pattern: Pattern | str) -> GroupPattern:
    parsed = Pattern.parse(pattern) if isinstance(pattern, str) else pattern
    if not isinstance(parsed, GroupPattern) or parsed.transposable:
        raise ValueError(
            'Channels are permuted for N:M patterns along the inputs, like "2:4" or "2:4@2", but the '
            f'pattern is "{parsed}".'
        )
    return parsed


def _unreached_reason(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"In evaluation mode the model does not read {', '.join(names[:3])}{more}, so nobody can tell which "
        "channels they work on; where that is none that others share, set trust_unreached in the options."
    )


def _unmeant_reason(pattern: GroupPattern) -> str:
    shared = f" and {pattern.shared} output channels" if pattern.shared > 1 else ""
    return (
        f"No layer that was chosen has as many channels as {pattern} needs: {pattern.group} input "
        f"channels{shared}."
    )


def _refuse_distributed(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if hasattr(parameter, "full_tensor"):
            raise ValueError(f"{name} is distributed (a DTensor); permute the model before it is sharded.")


def _inputs(example: Tensor | tuple[Any, ...] | Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, Mapping):
        return (), dict(example)
    return (example if isinstance(example, tuple) else (example,)), {}


def _meant(
    model: nn.Module,
    graph: ChannelGraph,
    pattern: GroupPattern,
    include: Sequence[str],
    exclude: Sequence[str],
) -> dict[str, Tensor]:
    """The weights that the pattern is meant for, by qualified name."""
    found, spared = {}, ends(model)
    stored = tensors(model)
    for name, consumer in graph.consumers.items():
        module, weight = name.rpartition(".")[0], stored[name]
        named = any(fnmatchcase(module, rule) for rule in include)
        named = named and (module not in spared or names(module, include))
        named = named and not any(fnmatchcase(module, rule) for rule in exclude)
        wide = weight.shape[consumer.in_axis] >= pattern.group
        if named and wide and weight.shape[consumer.out_axis] // consumer.blocks >= pattern.shared:
            found[name] = weight
    return found


class _Work:
    """One run over the classes of a model: the changes so far, and how to undo them."""

    def __init__(
        self, model: nn.Module, graph: ChannelGraph, layers: Layers, options: PermutationOptions
    ) -> None:
        self.graph, self.layers, self.options = graph, layers, options
        importance = {name + IMPORTANCE: tensor for name, tensor in layers.importance.items()}
        self.stored = tensors(model) | importance
        self.store = Store(self.stored, touched_names(graph.classes))
        self.by_class: dict[int, list[Move]] = {}
        self.reasons: dict[int, str] = {}
        self.kept = {name: layers.kept(name) for name in layers.weights}
        self.first = dict(self.kept)
        self.infinite = {name for name, w in layers.weights.items() if not bool(torch.isfinite(w).all())}
        self.changes: Counter[str] = Counter()
        self.searched: dict[int, list[int]] = {}

    @property
    def moved(self) -> list[Move]:
        return [move for some in self.by_class.values() for move in some]

    def run(self, report: PermutationReport, witness: Witness) -> PermutationReport:
        """Search, apply and compare; on any failure the model is as it was."""
        try:
            self._improve_all()
            difference = witness.compare() if self.by_class else None
            if difference is not None and not difference.small:
                difference = self._one_by_one(witness)
        except BaseException:
            self.store.restore()
            raise
        if difference is not None:
            report = replace(report, difference=difference.found, tolerance=difference.tolerance)
        return self._told(report)

    def _improve_all(self) -> None:
        passes = self.options.passes if self.layers.pattern.shared > 1 else 1
        classes = list(enumerate(self.graph.classes))
        title = f"ordering channels for {self.layers.pattern}"
        with progress_bar(title, passes * len(classes), self.options.progress) as advance:
            for turn in range(passes):
                for number, channels in classes:
                    self._improve(number, channels)
                    advance(turn * len(classes) + number + 1)

    def _improve(self, number: int, channels: ChannelClass) -> None:
        around = self.layers.around(channels)
        reason = self._refusal(channels, around)
        if self.searched.get(number) == self._state(around):
            return
        posed = reason or pose(self.layers, channels)
        if isinstance(posed, str):
            self.reasons[number] = posed
            return
        some = self._ordered(channels, posed)
        self.store.apply(some)
        kept = {name: self.layers.kept(name) for name in around}
        if sum(k for k, _ in kept.values()) > sum(self.kept[name][0] for name in around):
            self.kept.update(kept)
            self.by_class.setdefault(number, []).extend(some)
            self.reasons.pop(number, None)
            self.changes.update(around)
        else:
            self.store.apply([_inverse(move) for move in some])
            if number not in self.by_class:
                self.reasons[number] = "No order was found that keeps more."
        self.searched[number] = self._state(around)

    def _state(self, around: Sequence[str]) -> list[int]:
        """How often each of some layers has changed: a class is searched again where one did since."""
        return [self.changes[name] for name in around]

    def _ordered(self, channels: ChannelClass, posed: Posed) -> list[Move]:
        order = search(posed.problem, self.options.effort)
        return moves(
            channels,
            posed.slots,
            order,
            {use: counted(use, self.stored[use.tensor]) for use in channels.places},
        )

    def _refusal(self, channels: ChannelClass, around: Sequence[str]) -> str:
        for use in channels.places:
            mask = self.stored.get(use.tensor + MASK)
            if mask is not None and not bool(mask.all()):
                return f"{use.tensor} is pruned already; its mask would no longer keep to the pattern."
        for name in around:
            if name in self.infinite:
                return f"{name} holds NaN or infinity."
        return ""

    def _one_by_one(self, witness: Witness) -> Any:
        """Start again from the model as it was and keep each class that leaves the outputs alone."""
        wanted, self.by_class = self.by_class, {}
        self.store.restore()
        difference = witness.compare()
        for number, some in wanted.items():
            self.store.apply(some)
            found = witness.compare()
            if found.small:
                self.by_class[number], difference = some, found
                continue
            self.store.apply([_inverse(move) for move in reversed(some)])
            self.reasons[number] = (
                f"The outputs changed by {found.found:.1e}, where rounding explains {found.tolerance:.1e}; "
                "it was put back."
            )
        self.kept = {name: self.layers.kept(name) for name in self.layers.weights}
        return difference

    def _told(self, report: PermutationReport) -> PermutationReport:
        classes = []
        for number, channels in enumerate(self.graph.classes):
            around = self.layers.around(channels)
            if around:
                before, after = (sum(kept[name][0] for name in around) for kept in (self.first, self.kept))
                applied = number in self.by_class
                classes.append(
                    ClassOutcome(
                        tuple(around), channels.channels, before, after, applied, self.reasons.get(number, "")
                    )
                )
        rows = [
            LayerOutcome(
                name,
                self.first[name][0] / (total or 1.0),
                kept / (total or 1.0),
                self.graph.reasons.get(name, ""),
                self.graph.output_reasons.get(name, "") if self.layers.pattern.shared > 1 else "",
            )
            for name, (kept, total) in self.kept.items()
        ]
        total = sum(all_ for _, all_ in self.kept.values()) or 1.0
        before, after = (sum(kept for kept, _ in each.values()) / total for each in (self.first, self.kept))
        return replace(report, classes=tuple(classes), layers=tuple(rows), before=before, after=after)


def _inverse(move: Move) -> Move:
    return replace(move, index=move.index.argsort())

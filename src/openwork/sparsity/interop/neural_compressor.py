"""Neural Compressor's pruning configurations, read in openwork's terms.

Neural Compressor (until 3.7) took its pruning from dictionaries of texts and numbers. `import_pattern` and
`import_config` read them, for a model, and say in `notes` whatever means something else here. Source: Intel
Neural Compressor, `neural_compressor/compression/pruner` (README.md and the meaning of each key).
"""

from __future__ import annotations

import difflib
import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from openwork.patterns.pattern import BlockPattern, GroupPattern, Pattern
from openwork.sparsity.masks.view import WeightView
from openwork.sparsity.pruner.options import PrunerOptions
from openwork.sparsity.pruner.pruner import Pruner
from openwork.sparsity.pruner.regularizer import GroupLasso
from openwork.sparsity.pruner.schedule import Gradual, OneShot, Schedule

Config = Mapping[str, Any]
Masks = Literal["schedule", "zeros", "sparsegpt"]

DEFAULTS: dict[str, Any] = {
    "target_sparsity": 0.9,
    "pruning_type": "snip_momentum",
    "pattern": "4x1",
    "op_names": [],
    "excluded_op_names": [],
    "start_step": 0,
    "end_step": 0,
    "pruning_scope": "global",
    "pruning_frequency": 1,
    "min_sparsity_ratio_per_op": 0.0,
    "max_sparsity_ratio_per_op": 0.98,
    "sparsity_decay_type": "exp",
    "criterion_type": None,
    "pruning_op_types": ["Conv", "Linear"],
    "low_memory_usage": False,
    "resume_from_pruned_checkpoint": False,
    "lock_init_sparsity": False,
    "reg_type": None,
    "reg_coeff": 0.0,
    "criterion_reduce_type": "mean",
    "parameters": {},
}
"""The keys of a Neural Compressor configuration and what each is where it is left out."""

CRITERIA = {
    "magnitude": "magnitude",
    "gradient": "gradient",
    "snip": "snip",
    "snip_momentum": "snip-momentum",
}
"""Neural Compressor's criteria and openwork's names for them."""

OTHERWISE = {
    "magnitude": "A block is judged by its energy, the sum of w^2, and not by the mean of |w|.",
    "gradient": "|g| is summed over the steps since the start; Neural Compressor takes the last step's.",
    "snip": "|w g| is summed over the steps since the start; Neural Compressor takes the last step's.",
}
"""What the criteria of the same name do otherwise here."""

DECAYS = {"exp": "exponential", "cos": "cos", "linear": "linear", "cube": "cube"}
"""Neural Compressor's `sparsity_decay_type` and openwork's kinds of gradual schedules."""

_GROUPS = re.compile(r"(\d+):(\d+)")
_BLOCKS = re.compile(r"(\d+|channel)x(\d+|channel)")


@dataclass(frozen=True)
class ImportedPruning:
    """One of Neural Compressor's pruners in openwork's terms.

    patterns: by layer name. masks: where the masks come from: the schedule; the "zeros" that the weights hold
    already (`pattern_lock`); or "sparsegpt", which needs `pruner.prune("sparsegpt", calibration)`. notes:
    sentences on what means something else here than there.
    """

    patterns: Mapping[str, Pattern]
    schedule: Schedule
    criterion: str
    options: PrunerOptions
    masks: Masks
    notes: tuple[str, ...]

    def pruner(self, model: nn.Module) -> Pruner:
        """The pruner of `model`; its masks are those of the zeros where `masks` says so.

        Raises ValueError where no layer can be pruned.
        """
        rules = {glob.escape(name): pattern for name, pattern in self.patterns.items()}
        pruner = Pruner(
            model,
            rules,
            include=tuple(rules),
            schedule=self.schedule,
            criterion=self.criterion,
            options=self.options,
        )
        if self.masks == "zeros":
            pruner.recover()
        return pruner


def import_pattern(
    text: str, target_sparsity: float | None = None, shape: tuple[int, int] | None = None
) -> Pattern:
    """The pattern that Neural Compressor writes as `text`.

    "N:M" there prunes N of every M, here it keeps N: "1:4" becomes 3:4, whose zeros `target_sparsity` must
    be where it is given. "RxC" is the same block of R outputs x C inputs, with `target_sparsity` zeros (0.9):
    "4x1" becomes 4x1:0.9. "channelx1" and "1xchannel" are columns and rows of a layer's matrix, whose `shape`
    [out, in] they need.
    Raises ValueError for another text (head pruning has no counterpart) and for a fraction that the pattern
    does not allow.
    """
    bare = text.strip().split("_")[-1]
    if match := _GROUPS.fullmatch(bare):
        return _groups(int(match[1]), int(match[2]), target_sparsity)
    if match := _BLOCKS.fullmatch(bare):
        fraction = DEFAULTS["target_sparsity"] if target_sparsity is None else target_sparsity
        return BlockPattern(_side(match[1], shape, 0, text), _side(match[2], shape, 1, text), fraction)
    raise ValueError(
        f'{text!r} is none of Neural Compressor\'s patterns that zero weights ("4x1", "2:4", "channelx1", '
        '"1xchannel", "1x1"); to remove attention heads ("mha"), cut them out of the model instead.'
    )


def import_config(config: Any, model: nn.Module) -> list[ImportedPruning]:
    """What Neural Compressor would do to `model` for `config`, one entry for each of its pruners.

    config: a dictionary of `WeightPruningConfig`'s arguments, a list of such (a pruner each), or the
    `WeightPruningConfig` itself; `pruning_configs` inside it take what they leave out from it.
    Raises ValueError for a key or value that Neural Compressor does not have, and for what has no counterpart
    here.
    """
    return [_imported({**DEFAULTS, **single}, model) for single in _singles(config)]


def _singles(config: Any) -> Iterable[dict[str, Any]]:
    if hasattr(config, "weight_compression"):
        config = {**config.weight_compression, "pruning_configs": config.pruning_configs}
    if not isinstance(config, Mapping):
        return [_checked(single) for single in config]
    shared = _checked({key: value for key, value in config.items() if key != "pruning_configs"})
    return [{**shared, **_checked(single)} for single in config.get("pruning_configs") or [{}]]


def _checked(single: Config) -> dict[str, Any]:
    """The configuration without its `None`s, which mean the default, and `parameters` unfolded."""
    for key in single:
        if key not in DEFAULTS:
            near = difflib.get_close_matches(key, DEFAULTS, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else "."
            raise ValueError(f"{key!r} is no key of Neural Compressor's pruning configurations{hint}")
    given = {key: value for key, value in single.items() if value is not None}
    return {**given, **given.pop("parameters", {})}


def _imported(config: Config, model: nn.Module) -> ImportedPruning:
    notes: list[str] = []
    masks, criterion = _pruning_type(config, notes)
    patterns = _patterns(config, model, notes)
    if not patterns:
        raise ValueError(
            f"No layer of the model is called like op_names={config['op_names']} and of a type like "
            f"{config['pruning_op_types']}, or all of them are excluded. {' '.join(notes)}"
        )
    return ImportedPruning(
        patterns,
        _schedule(config, masks, notes),
        criterion,
        _options(config, notes),
        masks,
        tuple(notes),
    )


def _pruning_type(config: Config, notes: list[str]) -> tuple[Masks, str]:
    """Where the masks come from, and the criterion."""
    kind = str(config["pruning_type"])
    named = str(config["criterion_type"] or kind).removesuffix("_progressive")
    if config["resume_from_pruned_checkpoint"] or config["lock_init_sparsity"] or kind == "pattern_lock":
        return "zeros", CRITERIA.get(named, "magnitude")
    if kind == "sparse_gpt":
        notes.append('Choose the masks with pruner.prune("sparsegpt", calibration) before training.')
        return "sparsegpt", "magnitude"
    if named not in CRITERIA:
        raise ValueError(
            f"The pruning type {kind!r} has no counterpart; there are {', '.join(CRITERIA)}, each also with "
            "_progressive, pattern_lock and sparse_gpt."
        )
    if kind.endswith("_progressive"):
        notes.append(
            f"{kind} zeroes a block bit by bit between two updates; here a block goes at once at an update. "
            "For smaller steps take a smaller pruning_frequency."
        )
    if named in OTHERWISE:
        notes.append(OTHERWISE[named])
    return "schedule", CRITERIA[named]


def _patterns(config: Config, model: nn.Module, notes: list[str]) -> dict[str, Pattern]:
    head = _head(model)
    found = {}
    for name, module in model.named_modules():
        view = WeightView.of(module)
        if view is None or not _named(name, module, config):
            continue
        _, out, into = view.stacked
        pattern = import_pattern(config["pattern"], config["target_sparsity"], (out, into))
        if name == head:
            notes.append(f"{name} stays dense: Neural Compressor leaves out the last linear layer.")
        elif _divides(pattern, out, into):
            found[name] = pattern
        else:
            notes.append(f"{name} stays dense: Neural Compressor leaves out [{out}, {into}] for {pattern}.")
    if match := _GROUPS.fullmatch(str(config["pattern"]).split("_")[-1]):
        kept = int(match[2]) - int(match[1])
        notes.append(
            f"{match[0]} prunes {match[1]} of every {match[2]}; here that is {kept}:{match[2]}, which counts "
            "the weights that are kept."
        )
    return found


def _named(name: str, module: nn.Module, config: Config) -> bool:
    """Whether Neural Compressor would take this module: its regular expressions may match anywhere."""
    kind = type(module).__name__
    return (
        any(word in kind for word in config["pruning_op_types"])
        and any(re.search(rule, name) for rule in config["op_names"] or [".*"])
        and not any(re.search(rule, name) for rule in config["excluded_op_names"])
    )


def _head(model: nn.Module) -> str | None:
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return names[-1] if names else None


def _divides(pattern: Pattern, out: int, into: int) -> bool:
    if isinstance(pattern, BlockPattern):
        return out % pattern.rows == 0 and into % pattern.columns == 0
    return isinstance(pattern, GroupPattern) and into % pattern.group == 0


def _schedule(config: Config, masks: Masks, notes: list[str]) -> Schedule:
    start, end, every = config["start_step"], config["end_step"], config["pruning_frequency"]
    decay, target = config["sparsity_decay_type"], config["target_sparsity"]
    if decay not in DECAYS:
        raise ValueError(f"sparsity_decay_type is one of {', '.join(DECAYS)}, but it is {decay!r}.")
    if end < start or every < 1:
        raise ValueError(
            f"end_step is at least start_step and pruning_frequency at least 1, but they are {end}, "
            f"{start} and {every}."
        )
    # Neural Compressor counts whole updates: what is left over after the last one never comes.
    updates = (end - start) // every
    if masks != "schedule" or updates == 0:
        return OneShot(start if masks == "schedule" else 0)
    last = start + updates * every
    if last != end:
        notes.append(f"The target is reached at step {last}, the last that pruning_frequency comes to.")
    if _GROUPS.fullmatch(str(config["pattern"]).split("_")[-1]):
        notes.append(
            "On the way to N:M every group loses its weights one by one; in Neural Compressor whole groups "
            "go from dense to N:M, the weakest first."
        )
    density = {"density": 1.0 - target} if decay == "exp" else {}
    return Gradual(DECAYS[decay], start, last, every, **density)


def _options(config: Config, notes: list[str]) -> PrunerOptions:
    least, most = config["min_sparsity_ratio_per_op"], config["max_sparsity_ratio_per_op"]
    scope = config["pruning_scope"]
    if least == most == config["target_sparsity"]:
        scope = "local"
    elif least:
        notes.append(f"min_sparsity_ratio_per_op={least} is not kept: there is no floor for a layer's zeros.")
    if config["criterion_reduce_type"] not in ("mean", "sum"):
        notes.append("The weights of a block are judged by the sum of their scores, not by their maximum.")
    if config["low_memory_usage"]:
        notes.append("low_memory_usage is not needed: a mask takes one byte for each weight.")
    return PrunerOptions(scope=scope, ceiling=most, regularizers=_regularizers(config, notes))


def _regularizers(config: Config, notes: list[str]) -> tuple[GroupLasso, ...]:
    if config["reg_type"] in (None, "default") or not config["reg_coeff"]:
        return ()
    if config["reg_type"] != "group_lasso":
        raise ValueError(f'reg_type is "group_lasso" or None, but it is {config["reg_type"]!r}.')
    notes.append(
        "The group lasso adds reg_coeff * w / ||w|| of each block to the gradient, so the learning rate "
        "scales it; Neural Compressor takes reg_coeff * w / ||g|| off the weight. Choose reg_coeff anew."
    )
    return (GroupLasso(float(config["reg_coeff"])),)


def _groups(pruned: int, group: int, target: float | None) -> GroupPattern:
    if not 0 < pruned < group:
        raise ValueError(f'"{pruned}:{group}" must prune at least one and fewer than all of each group.')
    if target is not None and target != pruned / group:
        raise ValueError(
            f'"{pruned}:{group}" prunes {pruned / group:g} of the weights, but target_sparsity is '
            f"{target:g}; set target_sparsity to {pruned / group:g}."
        )
    return GroupPattern(group - pruned, group)


def _side(text: str, shape: Sequence[int] | None, axis: int, whole: str) -> int:
    if text != "channel":
        return int(text)
    if shape is None:
        raise ValueError(f"{whole!r} spans a layer's channels; pass the layer's shape=(out, in).")
    return shape[axis]

"""What norms do to channels."""

from __future__ import annotations

from torch import fx

from openwork.sparsity.permutation.rules.channels import block_of_channels
from openwork.sparsity.permutation.values import Value, combined, positions
from openwork.sparsity.permutation.walk import Known, Rule, Walk, argument, place, rule, shape_of

RULES: dict[str, Rule] = {}


@rule(RULES, "batch_norm", "instance_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
def per_channel_norm(walk: Walk, node: fx.Node) -> Known:
    return _scaled(walk, node, [each for each in node.args[1:5] if isinstance(each, fx.Node)])


@rule(RULES, "prelu")
def prelu(walk: Walk, node: fx.Node) -> Known:
    return _scaled(walk, node, [each for each in node.args[1:2] if isinstance(each, fx.Node)])


@rule(RULES, "group_norm")
def group_norm(walk: Walk, node: fx.Node) -> Known:
    value = walk.value(node.args[0])  # type: ignore[arg-type]
    groups = int(argument(node, 1, "num_groups"))
    if value.atoms is not None and 1 in value.varying and groups < value.shape[1]:
        blocks = block_of_channels(value.shape[1], groups).view(
            [-1 if a == 1 else 1 for a in range(len(value.shape))]
        )
        walk.relations.tell_apart(value.atoms, blocks)
        _tell_others_apart(walk, value, {1})
    return _scaled(walk, node, [each for each in node.args[2:4] if isinstance(each, fx.Node)])


def _scaled(walk: Walk, node: fx.Node, factors: list[fx.Node]) -> Known:
    """An operation for each place of axis 1 by stored vectors `factors`."""
    shape = shape_of(node)
    operands = [walk.value(node.args[0])]  # type: ignore[arg-type]
    for factor in factors:
        stored = walk.value(factor)
        wide = tuple(stored.shape[0] if a == 1 else 1 for a in range(len(shape)))
        operands.append(
            Value(
                None
                if stored.atoms is None
                else stored.atoms.view([stored.atoms.shape[0] if a == 1 else 1 for a in range(len(shape))]),
                wide,
            )
        )
    return combined(walk.relations, operands, shape, place(node))


@rule(RULES, "layer_norm", "rms_norm")
def layer_norm(walk: Walk, node: fx.Node) -> Known:
    value = walk.value(node.args[0])  # type: ignore[arg-type]
    normalized = len(argument(node, 1, "normalized_shape"))
    rank = len(value.shape)
    _tell_others_apart(walk, value, set(range(rank - normalized, rank)))
    operands = [value, *(walk.value(each) for each in node.args[2:4] if isinstance(each, fx.Node))]
    return combined(walk.relations, operands, shape_of(node), place(node))


def _tell_others_apart(walk: Walk, value: Value, axes: set[int]) -> None:
    if value.atoms is not None and axes & set(value.varying):
        others = [axis for axis in value.varying if axis not in axes]
        walk.relations.tell_apart(value.atoms, positions(value.atoms, others))

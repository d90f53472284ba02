"""What can be asked for on the command line."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from benchmarks.training.classifier import Recipe
from openwork import Pattern

from . import digits, minilm, orders
from .lineup import SCHEDULES

WORK = Path("build/benchmarks/sparsity")


def parser(description: str) -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.sparsity",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = made.add_argument_group("parts; without one of them, the digits and MiniLM")
    parts.add_argument("--digits", action="store_true", help="a small ResNet on scikit-learn's digits")
    parts.add_argument("--minilm", action="store_true", help="MiniLM's docstring search")
    parts.add_argument(
        "--orders", action="store_true", help="MiniLM after SparseGPT, by the order of channels"
    )
    parts.add_argument("--overhead", action="store_true", help="time masks and the step hook, on ResNets")
    parts.add_argument("--kills", type=int, metavar="N", help="kill and resume a training N times")
    add = made.add_argument
    add("--seeds", type=int, default=len(digits.Plan().seeds), help="of the digits")
    add("--patterns", help="separated by commas; without it, each part's own")
    add("--schedules", default=",".join(SCHEDULES), help="separated by commas")
    add("--dense-steps", type=int, default=digits.Plan().dense.steps, help="of the digits, before pruning")
    add("--steps", type=int, default=digits.Plan().tuned.steps, help="of the digits, for each schedule")
    add("--minilm-steps", type=int, default=minilm.Plan().steps, help="of distillation, for each schedule")
    add("--queries", type=int, default=minilm.Plan().queries, help="held-out pairs of the docstring search")
    add("--texts", type=int, default=orders.Plan().texts, help="that --orders calibrates on")
    add("--channels", default=",".join(orders.ORDERS), help="the orders of --orders, separated by commas")
    add("--distil", type=int, default=0, metavar="STEPS", help="of distillation after --orders has pruned")
    add("--seed", type=int, default=0, help="of the moments at which --kills kills")
    add("--work", type=Path, default=WORK, help="where finished cells, JSON and plot are written")
    add("--fresh", action="store_true", help="make every cell anew, whatever is stored")
    return made


def _patterns(given: argparse.Namespace, default: tuple[str, ...]) -> tuple[str, ...]:
    if given.patterns is None:
        return default
    return tuple(str(Pattern.parse(text)) for text in given.patterns.split(","))


def _schedules(given: argparse.Namespace) -> tuple[str, ...]:
    names = tuple(given.schedules.split(","))
    if unknown := set(names) - set(SCHEDULES):
        raise ValueError(f"The schedules are {', '.join(SCHEDULES)}, but {', '.join(sorted(unknown))} came.")
    return names


def digits_plan(given: argparse.Namespace) -> digits.Plan:
    """The digits' part. Raises ValueError for a wrong option."""
    if given.seeds < 1:
        raise ValueError(f"There is at least one seed, but {given.seeds} were asked for.")
    plan = digits.Plan()
    return digits.Plan(
        tuple(range(given.seeds)),
        _patterns(given, plan.patterns),
        _schedules(given),
        _with_steps(plan.dense, given.dense_steps),
        _with_steps(plan.tuned, given.steps),
    )


def _with_steps(recipe: Recipe, steps: int) -> Recipe:
    return replace(recipe, steps=steps)


def minilm_plan(given: argparse.Namespace) -> minilm.Plan:
    """MiniLM's part. Raises ValueError for a wrong option."""
    if given.minilm_steps < 1:
        raise ValueError(f"There is at least one step, but {given.minilm_steps} were asked for.")
    plan = minilm.Plan()
    return replace(
        plan,
        patterns=_patterns(given, plan.patterns),
        schedules=_schedules(given),
        steps=given.minilm_steps,
        queries=given.queries,
    )


def orders_plan(given: argparse.Namespace) -> orders.Plan:
    """The part of MiniLM's orders of channels. Raises ValueError for a wrong option."""
    patterns = _patterns(given, orders.Plan().patterns)
    channels = tuple(name.strip() for name in given.channels.split(","))
    return orders.Plan(patterns, given.texts, given.queries, channels, given.distil)

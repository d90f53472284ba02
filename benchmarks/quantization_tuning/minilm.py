"""MiniLM's embeddings of docstrings: scale migration, and bias correction beside it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from openwork.models import load_minilm, load_tokenizer
from openwork.quantization import QuantizationOptions, quantize

from .gain import Gain, error

MODULES = (
    "statistics", "pathlib", "json", "random", "string", "datetime", "collections", "argparse", "functools",
    "logging", "decimal", "fractions", "heapq", "textwrap", "difflib", "shutil",
)  # fmt: skip
"""Whose docstrings are the texts."""

LINEUP = {
    "nothing": QuantizationOptions(style="openwork", migrate=False),
    "correct biases": QuantizationOptions(style="openwork", migrate=False, correct_bias=True),
    "migrate scales": QuantizationOptions(style="openwork"),
    "migrate scales, correct biases": QuantizationOptions(style="openwork", correct_bias=True),
}


@dataclass(frozen=True)
class Plan:
    """How many texts to calibrate with, and to measure on."""

    calibration: int = 64
    measured: int = 64
    batch: int = 16


def texts() -> list[str]:
    """Docstrings of the standard library, in an order that mixes the modules."""
    found: list[str] = []
    for name in MODULES:
        module = importlib.import_module(name)
        members = [member for key, member in sorted(vars(module).items()) if not key.startswith("_")]
        found += [doc for member in members if callable(member) and (doc := inspect.getdoc(member))]
    unique = sorted(set(found))
    order = torch.randperm(len(unique), generator=torch.Generator().manual_seed(0))
    return [unique[i] for i in order.tolist()]


def run(plan: Plan) -> Iterator[Gain]:
    """Every way of tuning. Raises FileNotFoundError where the weights are not installed."""
    model = load_minilm()
    chosen = texts()
    calibration = _batches(chosen[: plan.calibration], plan.batch)
    measured = _batches(chosen[plan.calibration : plan.calibration + plan.measured], plan.batch)
    with torch.no_grad():
        wanted = torch.cat([model(**batch) for batch in measured])
        for tuned, options in LINEUP.items():
            quantized = quantize(model, calibration, options)
            found = torch.cat([quantized(**batch) for batch in measured])
            yield Gain("MiniLM", tuned, error(found, wanted))


def _batches(chosen: list[str], size: int) -> list[dict[str, Any]]:
    tokenizer = load_tokenizer()
    made = []
    for start in range(0, len(chosen), size):
        encoded = tokenizer.encode_batch(chosen[start : start + size])
        ids = torch.tensor([one.ids for one in encoded])
        mask = torch.tensor([one.attention_mask for one in encoded])
        made.append({"input_ids": ids, "attention_mask": mask})
    return made

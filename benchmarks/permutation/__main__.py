"""What channel permutation keeps and how long it takes.

python -m benchmarks.permutation                     ResNet-50 and BERT-base, 2:4 and 2:4@2
python -m benchmarks.permutation --networks minilm --patterns 64:128@64 --score energy   trained weights
python -m benchmarks.permutation --reference         layer by layer, against the exhaustive stripe search
python -m benchmarks.permutation --threads 2 --json permutation.json

MiniLM's weights are its own; others are random and distributed as trained ones (heavy tails, channels of
different size). Outputs before and after are compared in the same run.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.permutation.stripe_search import StripeSearch
from benchmarks.permutation.weights import make_trained_like, trained_like
from openwork.models import load_minilm
from openwork.models.bert import BertConfig, BertEncoder, mean_pool
from openwork.models.resnet import resnet50
from openwork.patterns.pattern import GroupPattern
from openwork.sparsity.masks.ends import EVERY
from openwork.sparsity.permutation import PermutationOptions, PermutationReport, permute
from openwork.sparsity.permutation.problem import Effort, Problem, kept
from openwork.sparsity.permutation.search import search
from openwork.support.files import write_atomic
from openwork.support.machine import this_machine

# Rows x channels of layers as the search sees them: a 3x3 convolution has nine rows for each output channel.
_REFERENCE = {
    "small example": (128, 64),
    "ResNet-50 layer1 conv2": (576, 64),
    "ResNet-50 layer1 residual": (256, 256),
    "ResNet-50 layer2 conv2": (1152, 128),
    "ResNet-50 layer2 conv3": (512, 128),
    "ResNet-50 layer3 conv3": (1024, 256),
    "BERT-base value head": (768, 64),
}


class Classifier(nn.Module):
    """BERT-base with a head on the mean of its hidden states, so that the hidden states may be reordered."""

    def __init__(self) -> None:
        super().__init__()
        sizes = BertConfig(
            vocab_size=1000,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
        )
        self.encoder, self.head = BertEncoder(sizes), nn.Linear(768, 8)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        scores: Tensor = self.head(mean_pool(self.encoder(ids, mask), mask))
        return scores


def network(name: str, seed: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    if name == "minilm":
        return load_minilm(), (torch.arange(2000, 2016).view(2, 8), torch.ones(2, 8, dtype=torch.int64))
    if name == "resnet50":
        return make_trained_like(resnet50(), seed), (torch.rand(1, 3, 64, 64),)
    ids = torch.arange(16).view(2, 8)
    return make_trained_like(Classifier(), seed), (ids, torch.ones_like(ids))


def whole(name: str, pattern: str, options: PermutationOptions) -> PermutationReport:
    """Permute a whole network; the report's comparison of outputs must have passed."""
    model, inputs = network(name, seed=0)
    report = permute(
        model, inputs, pattern, include=EVERY, exclude=("conv1", "encoder.embeddings*"), options=options
    )
    if report.reason or report.difference > report.tolerance or report.after < report.before:
        raise RuntimeError(f"The permutation of {name} for {pattern} failed: {report}")
    return report


def against_reference(rows: int, columns: int, escapes: int) -> dict[str, Any]:
    """The part of the magnitude that 2:4 keeps as the channels come, by the stripe search and by
    openwork's.
    """
    weight = trained_like((rows, columns), seed=7).abs()
    problem = Problem(GroupPattern(2, 4), weight.t().contiguous())
    total = float(weight.double().sum())
    start = time.process_time()
    stripes = StripeSearch(weight).run(escapes)
    between = time.process_time()
    ours = search(problem)
    end = time.process_time()
    orders = {"before": torch.arange(columns), "stripe search": stripes, "openwork": ours}
    for order in orders.values():
        assert torch.equal(order.sort().values, torch.arange(columns))
    found: dict[str, Any] = {name: kept(problem, order) / total for name, order in orders.items()}
    return {**found, "stripe seconds": between - start, "seconds": end - between}


def run(options: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, Any] = {
        "machine": this_machine(("openwork", "torch")).record(),
        "threads": options.threads,
    }
    if options.reference:
        results["reference"] = {}
        for name, (rows, columns) in _REFERENCE.items():
            row = against_reference(rows, columns, options.escapes)
            results["reference"][name] = row
            print(
                f"{name:<28} {rows:5} x {columns:<4} "
                + "  ".join(f"{key} {value:.5f}" for key, value in row.items()),
                flush=True,
            )
        return results
    results["networks"] = []
    for name in options.networks:
        for pattern in options.patterns:
            effort = Effort() if options.rounds is None else Effort(least=options.rounds, most=options.rounds)
            chosen = PermutationOptions(score=options.score, effort=effort)
            before = time.process_time()
            report = whole(name, pattern, chosen)
            busy = time.process_time() - before
            results["networks"].append({"network": name, "processor_seconds": busy, **report.to_json()})
            print(f"{name}: {str(report).splitlines()[-1]} ({busy:.1f} s of processor time)", flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--networks", nargs="+", default=["resnet50", "bert"], choices=["resnet50", "bert", "minilm"]
    )
    parser.add_argument("--patterns", nargs="+", default=["2:4", "2:4@2"])
    parser.add_argument("--score", default="magnitude", choices=["magnitude", "energy"])
    parser.add_argument("--rounds", type=int, help="rounds of each search (default: by size)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--reference", action="store_true", help="compare with the exhaustive stripe search")
    parser.add_argument("--escapes", type=int, default=100, help="random swaps of the stripe search")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = run(options)
    if options.json:
        write_atomic(options.json, [json.dumps(results, indent=1).encode()])


if __name__ == "__main__":
    main()

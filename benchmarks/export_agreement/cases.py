"""The networks that are compared, with data to calibrate and to compare on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

import torch
from examples.minilm_search import corpus
from torch import Tensor, nn
from torch.nn import functional

from openwork.export import ExportOptions
from openwork.models import BertConfig, BertEncoder, load_minilm, load_tokenizer
from openwork.models.resnet import resnet34

Inputs = Mapping[str, Tensor]

BERT_BASE = BertConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
IMAGE = 224
BATCH = 4
CALIBRATION_BATCHES = 4


@dataclass(frozen=True)
class Case:
    """One network: the float module in evaluation mode, its data, and how it is exported.

    batches: the inputs to compare on; the first dimension of every tensor is the item. blocks: a glob over
    the modules that are compared by themselves too.
    """

    name: str
    model: nn.Module
    calibration: tuple[Inputs, ...]
    batches: tuple[Inputs, ...]
    blocks: str
    options: ExportOptions = field(default_factory=ExportOptions)


def resnet(count: int) -> Case:
    """ResNet-34 with random weights, on smooth random images with noise of 224 x 224."""
    torch.manual_seed(0)
    model = resnet34().eval()
    batches = _cut({"images": _images(count)}, count)
    calibration = _cut({"images": _images(BATCH * CALIBRATION_BATCHES)}, BATCH * CALIBRATION_BATCHES)
    return Case("ResNet-34 (random)", model, calibration, batches, "layer?.*")


def bert(count: int) -> Case:
    """BERT-base with random weights, on random tokens of 16 to 64."""
    torch.manual_seed(0)
    model = BertEncoder(BERT_BASE).eval()
    calibration = tuple(_tokens(BATCH) for _ in range(CALIBRATION_BATCHES))
    batches = tuple(_tokens(BATCH) for _ in range(-(-count // BATCH)))
    options = ExportOptions(output_names=("states",))
    return Case("BERT-base (random)", model, calibration, batches, "encoder.layer.*", options)


def minilm(count: int) -> Case:
    """all-MiniLM-L6-v2 with its weights, on paragraphs of docstrings of the installed packages."""
    tokenizer = load_tokenizer(max_length=128)
    calibrating = 64
    texts = list(islice(_paragraphs(), count + calibrating))
    made = []
    for start in range(0, len(texts), 16):
        encoded = tokenizer.encode_batch(texts[start : start + 16])
        ids, mask = ([getattr(e, name) for e in encoded] for name in ("ids", "attention_mask"))
        made.append({"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)})
    first = calibrating // 16
    blocks = "encoder.encoder.layer.*"
    return Case("MiniLM-L6 (real)", load_minilm(), tuple(made[:first]), tuple(made[first:]), blocks)


CASES: dict[str, Callable[[int], Case]] = {"resnet34": resnet, "bert-base": bert, "minilm": minilm}


def _images(count: int) -> Tensor:
    smooth = torch.randn(count, 3, IMAGE // 16, IMAGE // 16)
    return functional.interpolate(smooth, size=(IMAGE, IMAGE), mode="bilinear") + 0.3 * torch.randn(
        count, 3, IMAGE, IMAGE
    )


def _cut(inputs: Inputs, count: int) -> tuple[Inputs, ...]:
    return tuple(
        {name: tensor[start : start + BATCH] for name, tensor in inputs.items()}
        for start in range(0, count, BATCH)
    )


def _tokens(count: int) -> Inputs:
    lengths = torch.randint(16, 65, (count,))
    mask = (torch.arange(64)[None] < lengths[:, None]).long()
    return {"input_ids": torch.randint(0, BERT_BASE.vocab_size, (count, 64)) * mask, "attention_mask": mask}


def _paragraphs() -> Iterable[str]:
    for module, path in corpus.source_files():
        for pair in corpus.pairs_in(module, path.read_bytes()):
            yield pair.document

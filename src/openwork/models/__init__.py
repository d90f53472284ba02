"""Small definitions of the networks that the examples and the tests use; needs torch."""

from openwork.models.bert import BertConfig, BertEncoder, SentenceEmbedder, mean_pool
from openwork.models.minilm import load_minilm, load_tokenizer, minilm_path
from openwork.models.resnet import (
    ResNet,
    ResNetConfig,
    resnet18,
    resnet34,
    resnet50,
    resnext50,
    small_resnet,
)

__all__ = [
    "BertConfig",
    "BertEncoder",
    "ResNet",
    "ResNetConfig",
    "SentenceEmbedder",
    "load_minilm",
    "load_tokenizer",
    "mean_pool",
    "minilm_path",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnext50",
    "small_resnet",
]

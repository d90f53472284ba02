"""Definitions of the networks that the examples, benchmarks and tests use; needs torch."""

from openwork.models.bert import BertConfig, BertEncoder, SentenceEmbedder, mean_pool
from openwork.models.convnext import ConvNeXt, ConvNeXtConfig, convnext_tiny
from openwork.models.densenet import DenseNet, DenseNetConfig, densenet121
from openwork.models.dlrm import DLRM, DLRMConfig
from openwork.models.efficientnet import EfficientNet, EfficientNetConfig, efficientnet_b0
from openwork.models.minilm import load_minilm, load_tokenizer, minilm_path
from openwork.models.mobilenet import (
    MobileNetV2,
    MobileNetV2Config,
    MobileNetV3,
    MobileNetV3Config,
    mobilenet_v2,
    mobilenet_v3_large,
    mobilenet_v3_small,
)
from openwork.models.resnet import (
    ResNet,
    ResNetConfig,
    resnet18,
    resnet34,
    resnet50,
    resnext50,
    resnext101_32x8d,
    small_resnet,
)
from openwork.models.transformer import GPT, TransformerConfig, TransformerDecoder, TransformerEncoder
from openwork.models.xception import Xception, XceptionConfig, xception

__all__ = [
    "DLRM",
    "GPT",
    "BertConfig",
    "BertEncoder",
    "ConvNeXt",
    "ConvNeXtConfig",
    "DLRMConfig",
    "DenseNet",
    "DenseNetConfig",
    "EfficientNet",
    "EfficientNetConfig",
    "MobileNetV2",
    "MobileNetV2Config",
    "MobileNetV3",
    "MobileNetV3Config",
    "ResNet",
    "ResNetConfig",
    "SentenceEmbedder",
    "TransformerConfig",
    "TransformerDecoder",
    "TransformerEncoder",
    "Xception",
    "XceptionConfig",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "load_minilm",
    "load_tokenizer",
    "mean_pool",
    "minilm_path",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnext50",
    "resnext101_32x8d",
    "small_resnet",
    "xception",
]

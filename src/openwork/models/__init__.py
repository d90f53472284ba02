"""Small definitions of the networks that the examples and the tests use; needs torch."""

from openwork.models.bert import BertConfig, BertEncoder, SentenceEmbedder, mean_pool
from openwork.models.minilm import load_minilm, load_tokenizer, minilm_path

__all__ = [
    "BertConfig",
    "BertEncoder",
    "SentenceEmbedder",
    "load_minilm",
    "load_tokenizer",
    "mean_pool",
    "minilm_path",
]

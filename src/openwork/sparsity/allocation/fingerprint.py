"""Digests that tell one model, or one set of inputs, from another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from openwork.sparsity.masks.sharded_tensors import full


def model_digest(model: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and values of all parameters and buffers, in hexadecimal."""
    return _digest([*model.named_parameters(), *model.named_buffers()])


def inputs_digest(inputs: Any) -> str:
    """SHA-256 over tensors in nested sequences and mappings and whatever else `repr` shows of them."""
    return _digest(_leaves("", inputs))


def _digest(named: Sequence[tuple[str, Any]] | Iterator[tuple[str, Any]]) -> str:
    sha = hashlib.sha256()
    for name, value in named:
        if isinstance(value, Tensor):
            whole = full(value).cpu().contiguous()
            sha.update(f"{name} {whole.dtype} {list(whole.shape)};".encode())
            sha.update(whole.reshape(-1).view(torch.uint8).numpy().data)
        else:
            sha.update(f"{name} {value!r};".encode())
    return sha.hexdigest()


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, member in value.items():
            yield from _leaves(f"{path}.{key}", member)
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        for index, member in enumerate(value):
            yield from _leaves(f"{path}[{index}]", member)
    else:
        yield path, value

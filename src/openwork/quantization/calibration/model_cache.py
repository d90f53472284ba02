"""The calibration cache of a torch model: what `calibrate` chose, bound to the model and to the options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn
from torch import distributed as dist

from openwork.quantization.fake_quantization.fake_quant import FakeQuantize
from openwork.quantization.placement import Prepared
from openwork.quantization.scales.cache import CacheEntry, CalibrationCache, digest, read_cache

_CALIBRATED = "input_multiplier"
"""A buffer that calibration writes; what the model is does not depend on it."""


def load(prepared: Prepared, path: str | PathLike[str]) -> dict[str, CacheEntry] | None:
    """The entries of a cache by the names of the groups; None where there is no such file.

    Raises StaleCache where it belongs to another model or other options, ValueError for a damaged file.
    """
    if not Path(path).exists():
        return None
    cache = read_cache(path)
    names = [group.quantizer.name for group in prepared.groups]
    cache.check(model_digest(prepared.model), prepared.options.settings, names, str(path))
    return {name: cache.tensors[name] for name in names}


def store(prepared: Prepared, entries: Mapping[str, CacheEntry], path: str | PathLike[str]) -> None:
    """Write the cache, whole or not at all; of several workers the first one writes."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0:
        CalibrationCache(model_digest(prepared.model), prepared.options.settings, entries).write(path)


def model_digest(model: nn.Module) -> str:
    """A digest of a prepared model's structure and weights, without what calibration chooses."""
    return digest(_parts(model))


def _parts(model: nn.Module) -> Iterator[bytes]:
    for name, module in model.named_modules():
        yield f"{name}: {type(module).__name__}".encode()
        if isinstance(module, FakeQuantize):
            continue
        # Only what a class of torch prints is known not to change from run to run.
        if type(module).__module__.startswith(("torch.", "openwork.quantization.fake_quantization.modules")):
            yield module.extra_repr().encode()
        for kind in (module._parameters, module._buffers):
            for key, tensor in kind.items():
                if tensor is not None and key != _CALIBRATED:
                    yield f"{key}: {tensor.dtype} {list(tensor.shape)}".encode()
                    yield _bytes(tensor)


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()

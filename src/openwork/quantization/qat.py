"""Quantization-aware training: the user's own loop on a calibrated model, its masks and statistics held.

    prepared = prepare(model, example, QuantizationOptions(batchnorm="keep"))
    model = calibrate(prepared, data)
    training = QuantizationAwareTraining(model, freeze_batchnorm_at=1000)
    optimizer = torch.optim.SGD(training.parameter_groups(weight_decay=1e-4), lr=1e-3)
    training.attach(optimizer)
    ...                                    the loop: forward, loss, backward, optimizer.step()
    training.finish(example)               BatchNorm folded, scales fixed, masks checked

Rounding passes gradients straight through (see `FakeQuantize`). Nothing in the loop changes, so it may run
under DistributedDataParallel and torch.compile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from openwork.quantization.corrections.batch_norm import Fold, fold_batchnorm
from openwork.quantization.fake_quantization.fake_quant import FakeQuantize
from openwork.quantization.fake_quantization.modules import MASK_SUFFIX
from openwork.quantization.fake_quantization.switches import quantizers
from openwork.sparsity.masks.view import normed, parameter_of
from openwork.support.batches import Batch


class FrozenStatistics(_BatchNorm):
    """A BatchNorm that normalizes with its running statistics whatever the model's mode, and leaves them."""

    def train(self, mode: bool = True) -> FrozenStatistics:
        """Stays in evaluation mode."""
        super().train(False)
        return self


class FrozenBatchNorm1d(FrozenStatistics, nn.BatchNorm1d):
    """`nn.BatchNorm1d`, frozen."""


class FrozenBatchNorm2d(FrozenStatistics, nn.BatchNorm2d):
    """`nn.BatchNorm2d`, frozen."""


class FrozenBatchNorm3d(FrozenStatistics, nn.BatchNorm3d):
    """`nn.BatchNorm3d`, frozen."""


class FrozenSyncBatchNorm(FrozenStatistics, nn.SyncBatchNorm):
    """`nn.SyncBatchNorm`, frozen."""


_FROZEN: dict[type[_BatchNorm], type[FrozenStatistics]] = {
    nn.BatchNorm1d: FrozenBatchNorm1d,
    nn.BatchNorm2d: FrozenBatchNorm2d,
    nn.BatchNorm3d: FrozenBatchNorm3d,
    nn.SyncBatchNorm: FrozenSyncBatchNorm,
}


def freeze_batchnorm(model: nn.Module) -> int:
    """Freeze the running statistics of every BatchNorm of the model, in place; its weight and bias go on
    being trained. Returns how many were frozen now.

    Raises ValueError for a BatchNorm without running statistics, or of an unknown class, naming it.
    """
    count = 0
    for name, module in model.named_modules():
        if not isinstance(module, _BatchNorm) or isinstance(module, FrozenStatistics):
            continue
        if type(module) not in _FROZEN or module.running_mean is None:
            raise ValueError(
                f"{name} ({type(module).__name__}) must be one of torch's BatchNorms with running statistics "
                "to be frozen."
            )
        module.__class__ = _FROZEN[type(module)]
        module.train(False)
        count += 1
    return count


class QuantizationAwareTraining:
    """Holds the masks and freezes what is to be frozen, from a hook after each step of the optimizer.

    model: calibrated, on the device where it is trained. freeze_batchnorm_at, freeze_scales_at: after how
    many steps the statistics of BatchNorm, and all scales, stay as they are; None never, 0 from the start.
    step: how many steps were made. The masks are those that the model has now: every step zeroes what they
    drop, and none may change. Raises ValueError if a quantizer has no scale, naming it.
    """

    def __init__(
        self,
        model: nn.Module,
        freeze_batchnorm_at: int | None = None,
        freeze_scales_at: int | None = None,
    ) -> None:
        _require_calibrated(model)
        self.model = model
        self.freeze_batchnorm_at, self.freeze_scales_at = freeze_batchnorm_at, freeze_scales_at
        self.step = 0
        self._masks = {key: mask.clone() for key, (_, mask) in _masked(model).items()}
        self._freeze()

    def parameter_groups(self, weight_decay: float = 0.0, **others: Any) -> list[dict[str, Any]]:
        """Groups for an optimizer: the weights, and without decay the learned scales, which must not shrink.

        others: settings of the weights' group, such as `lr`.
        """
        scales = {id(p): p for q in quantizers(self.model) for p in q.parameters()}
        weights = [parameter for parameter in self.model.parameters() if id(parameter) not in scales]
        groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": weight_decay, **others}]
        if scales:
            groups.append({"params": list(scales.values()), "weight_decay": 0.0, **others})
        return groups

    def attach(self, optimizer: torch.optim.Optimizer) -> RemovableHandle:
        """Act after each step of `optimizer`; `.remove()` on what is returned lets go.

        Raises ValueError if the optimizer trains none of the model's parameters.
        """
        trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if not any(id(parameter) in trained for parameter in self.model.parameters()):
            raise ValueError(
                "The optimizer trains none of the model's parameters; build it after the model was prepared."
            )
        return optimizer.register_step_post_hook(lambda *_: self._after_step())

    @torch.no_grad()
    def apply(self) -> None:
        """Zero every weight that its mask drops."""
        for weight, mask in _masked(self.model).values():
            weight.mul_(mask)

    def verify(self) -> None:
        """Raise ValueError, naming the weight, unless every mask is what it was at the start and the weights
        keep to it.
        """
        now = _masked(self.model)
        for name, mask in self._masks.items():
            weight, present = now.get(name, (torch.zeros(0), None))
            if present is None or not torch.equal(present.cpu(), mask.cpu()):
                raise ValueError(
                    f"The mask of {name} changed during quantization-aware training, which keeps masks as "
                    "they are; end the pruning schedule before it begins."
                )
            if bool((weight[~present] != 0).any()):
                raise ValueError(f"{name} is not zero where its mask drops it; call apply().")

    def finish(self, example: Batch) -> tuple[Fold, ...]:
        """End the training: apply and check the masks, fold every BatchNorm that was kept, fix all scales.

        example: one batch of the model's inputs. Returns one row for each BatchNorm.
        Raises as `verify` and `fold_batchnorm` do.
        """
        self.apply()
        self.verify()
        folds = fold_batchnorm(self.model, example)
        for quantizer in quantizers(self.model):
            if quantizer.mode == "quantizing":
                quantizer.freeze()
        return folds

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs beside the model's and the optimizer's states."""
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken; load the model's own state first."""
        self.step = int(state["step"])
        self._masks = {key: mask.clone() for key, (_, mask) in _masked(self.model).items()}
        self._freeze()

    def _after_step(self) -> None:
        self.step += 1
        self.apply()
        self._freeze()

    def _freeze(self) -> None:
        if self.freeze_batchnorm_at is not None and self.step >= self.freeze_batchnorm_at:
            freeze_batchnorm(self.model)
        if self.freeze_scales_at is not None and self.step >= self.freeze_scales_at:
            for quantizer in quantizers(self.model):
                if quantizer.mode == "quantizing":
                    quantizer.freeze()


def _require_calibrated(model: nn.Module) -> None:
    found = quantizers(model)
    if not found:
        raise ValueError("Nothing in the model is quantized; prepare and calibrate it before training.")
    missing = [quantizer.name for quantizer in found if not _ready(quantizer)]
    if missing:
        raise ValueError(
            f"{', '.join(missing[:5])} ({len(missing)} quantizers) have no scale yet; calibrate the model "
            "before training it."
        )


def _ready(quantizer: FakeQuantize) -> bool:
    return quantizer.calibrated or quantizer.options.follow


def _stored(module: nn.Module, parameter: str) -> nn.Parameter | None:
    """The parameter; of a weight that weight_norm computes its direction, which the mask is of."""
    own = module._parameters.get(parameter)
    norm = normed(module) if parameter == "weight" and own is None else None
    return own if norm is None else parameter_of(module, norm)


def _masked(model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Each weight with a mask, and the mask, by the weight's name."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, module in model.named_modules():
        for key, buffer in module.named_buffers(recurse=False):
            weight = _stored(module, key.removesuffix(MASK_SUFFIX))
            if key.endswith(MASK_SUFFIX) and weight is not None and buffer.dtype == torch.bool:
                parameter = key.removesuffix(MASK_SUFFIX)
                found[f"{name}.{parameter}" if name else parameter] = (weight, buffer)
    return found

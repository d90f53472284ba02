"""Two workers calibrate a whole model to the scales of one, and train it together."""

from __future__ import annotations

from pathlib import Path

from two_workers import expect_agreement

WORKER = """
import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy

from openwork.quantization import QuantizationOptions, calibrate, prepare
from openwork.quantization.qat import QuantizationAwareTraining
from openwork.sparsity import Pruner
from quant_models import images, small_resnet

OPTIONS = [QuantizationOptions(observer=kind) for kind in ("max", "percentile", "entropy", "mse")]
OPTIONS.append(QuantizationOptions(style="openwork"))


def scales(options, data):
    prepared = prepare(small_resnet(), images(1)[0], options)
    calibrate(prepared, data)
    return {name: quantizer.affine for name, quantizer in prepared.quantizers.items()}


data = images(6)
alone = [scales(options, data) for options in OPTIONS]
dist.init_process_group("gloo")
rank, workers = dist.get_rank(), dist.get_world_size()
parts = [scales(options, data[:2] if rank else data[2:]) for options in OPTIONS]
assert parts == alone, (parts, alone)
assert len(alone[0]) == 9

# A worker without data takes over the others' scales; without any data anywhere there is an error.
assert scales(OPTIONS[0], [] if rank else data) == alone[0]
try:
    scales(OPTIONS[0], [])
except ValueError as error:
    assert "No data reached conv1" in str(error), error
else:
    raise SystemExit("calibration without data was not refused")

model = small_resnet()
Pruner(model, "2:4", exclude=("conv1", "fc")).prune("magnitude")
prepared = prepare(model, data[0], QuantizationOptions(batchnorm="keep", learned="step"))
model = calibrate(prepared, data)
training = QuantizationAwareTraining(model, freeze_batchnorm_at=2)
parallel = torch.nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.SGD(training.parameter_groups(), lr=0.01, momentum=0.9)
training.attach(optimizer)
parallel.train()
for step in range(4):
    optimizer.zero_grad()
    cross_entropy(parallel(images(1, seed=10 * rank + step)[0]), torch.arange(4)).backward()
    optimizer.step()
training.verify()
everywhere = [None] * workers
dist.all_gather_object(everywhere, {name: p.detach() for name, p in model.named_parameters()})
for name, tensor in everywhere[0].items():
    assert torch.equal(tensor, everywhere[1][name]), name
print("agreed", flush=True)
dist.destroy_process_group()
"""


def test_two_ranks_calibrate_to_the_scales_of_one_and_train_together(tmp_path: Path) -> None:
    expect_agreement(WORKER, tmp_path)

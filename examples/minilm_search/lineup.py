"""Who takes part: dense FP32, the INT8 peers at their best settings, and openwork's engines."""

from dataclasses import replace
from pathlib import Path

from openwork.evaluate.retrieval import cosine_similarity

from . import peers
from .engines import DENSE, Workshop
from .measuring import LEAST_COSINE, Shape
from .plan import DYNAMIC, NNCF, OPENVINO, STATIC
from .runners import Runner, with_onnxruntime, with_openwork
from .settings import PATTERNS

FP32 = "ONNX Runtime FP32"
OURS = {DENSE: "openwork INT8 dense", **{pattern: f"openwork INT8 {pattern}" for pattern in PATTERNS}}


class Lineup:
    """Runners by name; those that take any shape are made once."""

    def __init__(self, shop: Workshop) -> None:
        self.shop, self.threads = shop, shop.settings.threads
        self.peers = shop.plan.peers
        self.any_shape = {FP32: with_onnxruntime(FP32, shop.dense_float(), self.threads)}
        if DYNAMIC in self.peers:
            self._add(with_onnxruntime(DYNAMIC, shop.peer(DYNAMIC), self.threads))
        if STATIC in self.peers:
            self._add(self._onnxruntime_static(shop.quantized(DENSE), shop.peer(STATIC)))
        self.openvino_models = {
            name: shop.peer(name) if name == NNCF else shop.quantized(DENSE)
            for name in (OPENVINO, NNCF)
            if name in self.peers
        }
        self.openvino = {
            name: self._openvino(name, path, None) for name, path in self.openvino_models.items()
        }
        for pattern, path in shop.engines().items():
            self._add(with_openwork(OURS[pattern], path, self.threads))
        self.witnesses = {
            name: with_onnxruntime(f"{name}, its witness", shop.quantized(pattern), self.threads)
            for pattern, name in OURS.items()
        }

    def _add(self, runner: Runner) -> None:
        self.any_shape[runner.name] = runner

    def _onnxruntime_static(self, ours: Path, theirs: Path) -> Runner:
        """openwork's Q/DQ model, or that of ONNX Runtime's own quantizer if it is faster and as faithful."""
        name, inputs = STATIC, self.shop.inputs((16, 128))
        own = replace(with_onnxruntime(name, theirs, self.threads), name=f"{name}, own quantizer")
        export = replace(with_onnxruntime(name, ours, self.threads), name=f"{name}, openwork's export")
        reference = self.any_shape[FP32].run(*inputs)
        kept = {r.name: cosine_similarity(r.run(*inputs), reference).mean() for r in (own, export)}
        faithful = kept[own.name] >= min(LEAST_COSINE, kept[export.name])
        best = peers.fastest([own, export] if faithful else [export], inputs)
        return replace(best, name=name, settings=f"{best.name.removeprefix(name + ', ')}, {best.settings}")

    def _openvino(self, name: str, path: Path, shape: Shape | None) -> list[Runner]:
        return peers.openvino_candidates(name, [path], self.threads, shape)

    def for_quality(self) -> list[Runner]:
        """Everyone, with OpenVINO at any shape and the precision that is faster at 16x128."""
        inputs = self.shop.inputs((16, 128))
        return self._with({name: peers.fastest(found, inputs) for name, found in self.openvino.items()})

    def for_shape(self, shape: Shape) -> list[Runner]:
        """Everyone, with OpenVINO at the precision and the kind of shape that is fastest for `shape`."""
        inputs = self.shop.inputs(shape)
        best = {
            name: peers.fastest([*self.openvino[name], *self._openvino(name, path, shape)], inputs)
            for name, path in self.openvino_models.items()
        }
        return self._with(best)

    def _with(self, openvino: dict[str, Runner]) -> list[Runner]:
        everyone = {**self.any_shape, **openvino}
        return [everyone[name] for name in (FP32, *self.peers, *OURS.values())]

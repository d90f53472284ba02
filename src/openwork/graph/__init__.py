"""The graph: reading ONNX, verifying, and reducing it by rules to the operators of docs/program.md."""

from openwork.graph.driver import Change, Refusal
from openwork.graph.model import ModelError
from openwork.graph.reader import read
from openwork.graph.reduce import lowerable, reduce
from openwork.graph.reference import run
from openwork.graph.rules import PHASES, ROUNDINGS, RULES, check_rounding
from openwork.graph.verify import verify

__all__ = [
    "PHASES",
    "ROUNDINGS",
    "RULES",
    "Change",
    "ModelError",
    "Refusal",
    "check_rounding",
    "lowerable",
    "read",
    "reduce",
    "run",
    "verify",
]

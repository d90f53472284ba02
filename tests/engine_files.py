"""Engine files for tests: a report to put into them, and files whose header was changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openwork.engine import engine_file
from openwork.engine.report import REPORT_VERSION, BuildReport, Environment, Settings

REPORT = BuildReport(
    version=REPORT_VERSION,
    model="sample",
    environment=Environment("0", "any", "any", 1, "any"),
    settings=Settings("on", "exact", "fp32", "on", True, (), False),
    accuracy_kept=True,
    notes=(),
    layers=(),
    fusions=(),
    refusals=(),
    left_out=(),
    fallbacks=(),
    whole=(),
)


def rewritten(engine: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> bytes:
    """The engine with its header changed by `change(header, program)` and its digest made right again."""
    content = engine.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    metadata = header["__metadata__"]
    program = json.loads(metadata["program"])
    change(header, program)
    if metadata.get("program"):
        metadata["program"] = json.dumps(program)
    metadata["header_sha256"] = engine_file._NO_DIGEST
    return b"".join([*engine_file._header(header), content[start:]])

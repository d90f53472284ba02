"""Says at the end of a run which instruction sets it covered."""

from __future__ import annotations

import os

import pytest

import instruction_sets

# What is timed decides between native steps and ONNX Runtime, and no test may depend on a time: those of the
# choice itself ask for it.
os.environ["OPENWORK_NATIVE"] = "force"

PROPERTY = "instruction set"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note in the test's report which instruction set it runs on, where it has the parameter `isa`."""
    call = getattr(item, "callspec", None)
    if call is not None and call.params.get("isa") in instruction_sets.REQUIRED:
        item.user_properties.append((PROPERTY, call.params["isa"]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Runs without such tests say nothing of instruction sets."""
    passed = terminalreporter.stats.get("passed", [])
    run = {value for report in passed for name, value in report.user_properties if name == PROPERTY}
    if run:
        terminalreporter.write_line(instruction_sets.sentence(run, instruction_sets.present()))

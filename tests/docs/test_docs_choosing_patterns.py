"""The examples of docs/choosing_patterns.md, word for word, and the table that they print."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "choosing_patterns.md"


def test_the_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(code, names)
    printed = capsys.readouterr().out
    (table,) = re.findall(r"```\n(Increase.*?)\n```", text, re.DOTALL)
    # Training sums in another order on another machine: the numbers are one machine's, their places are not.
    shown, made = table.splitlines(), printed.splitlines()[: len(table.splitlines())]
    assert shown[1].split() == made[1].split()
    places = [[(cell == "-") for cell in line.split()] for line in shown[2:]]
    assert places == [[(cell == "-") for cell in line.split()] for line in made[2:]]
    assert (tmp_path / "sensitivity.json").exists()
    allocation, pruner = names["allocation"], names["pruner"]
    assert allocation.seconds <= 130e-6 * (1 + 1e-12)
    assert {name: str(p.pattern) for name, p in pruner.prunables.items()} == {
        name: pattern for name, pattern in allocation.mapping.items() if pattern
    }
    (predicted,) = re.findall(r"```\n(layers .*?)\n```", text, re.DOTALL)
    assert predicted in printed

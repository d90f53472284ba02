"""The code of the pages for people who come from ASP and Neural Compressor, word for word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from openwork.sparsity import Pruner
from openwork.sparsity.interop.asp import ASP

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    ASP.reset()
    yield
    ASP.reset()


def run(page: str) -> dict[str, object]:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 2
    names: dict[str, object] = {}
    exec("\n".join(blocks), names)
    return names


def test_coming_from_asp(capsys: pytest.CaptureFixture[str]) -> None:
    names = run("coming_from_asp.md")
    assert "The weight" not in capsys.readouterr().err
    model, restored = names["model"], names["restored"]
    assert isinstance(model, torch.nn.Module)
    assert isinstance(restored, torch.nn.Module)
    theirs = model.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in restored.state_dict().items())


def test_coming_from_neural_compressor(capsys: pytest.CaptureFixture[str]) -> None:
    names = run("coming_from_neural_compressor.md")
    pruner = names["pruner"]
    assert isinstance(pruner, Pruner)
    # 16 blocks of 128 x 64 and 128 x 128 weights, of which each layer's share is rounded to whole blocks.
    assert pruner.zeros == pytest.approx(0.8, abs=2 / (32 * 64 + 32 * 128))
    shown = capsys.readouterr().out
    assert "4 stays dense: Neural Compressor leaves out the last linear layer." in shown
    assert "2 of 3 weights pruned, 80.0% of their weights zero" in shown


@pytest.mark.parametrize("page", ["coming_from_asp.md", "coming_from_neural_compressor.md"])
def test_every_call_that_a_page_names_exists(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    calls = set(re.findall(r"`ASP\.(\w+)\(", text)) - {"set_permutation_saving_params"}
    assert all(callable(getattr(ASP, call)) for call in calls)
    assert page != "coming_from_asp.md" or len(calls) >= 8

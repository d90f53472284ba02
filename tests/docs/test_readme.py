"""The example of README.md, word for word, on a tiny network in the place of the real one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import openwork.models
from openwork.builder import tactics
from openwork.models.bert import BertEncoder, SentenceEmbedder
from test_tiny import CONFIG, SEED, tensors, text

README = Path(__file__).parents[2] / "README.md"


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    torch.manual_seed(SEED)
    monkeypatch.setattr(openwork.models, "load_minilm", lambda: SentenceEmbedder(BertEncoder(CONFIG)).eval())
    monkeypatch.setattr(tactics, "DISTURBED", np.inf)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    feed = text(3, 11, seed=1)
    names: dict[str, Any] = {
        "batches": [tensors(text(8, 24, seed)) for seed in range(4)],
        "ids": feed["input_ids"],
        "mask": feed["attention_mask"],
    }
    exec(code, names)
    (expected,) = onnxruntime.InferenceSession("model.onnx").run(["embedding"], feed)
    assert names["embedding"].shape == expected.shape
    # Embeddings have norm 1; a rounding that falls the other way moves them by about INT8's step, 1 / 127.
    assert np.abs(names["embedding"] - expected).max() < 2 / 127

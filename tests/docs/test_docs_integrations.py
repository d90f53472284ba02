"""The code of the page on other training loops, as a reader would run it: one script under torchrun."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "sparsity_integrations.md"

pytest.importorskip("accelerate", reason="the page's code needs accelerate")
pytest.importorskip("lightning", reason="the page's code needs lightning")
pytest.importorskip("transformers", reason="the page's code needs transformers")


def _failure(stderr: str) -> str:
    """What the script said of itself, without the launcher's own report."""
    own = [line for line in stderr.splitlines() if line.startswith("[rank0]:")]
    return "\n".join(own) or stderr[-4000:]


def test_the_code_of_the_page_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 6
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1")
    done = subprocess.run(
        [*launch, str(script)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, _failure(done.stderr)
    assert {path.name for path in tmp_path.iterdir()} >= {"checkpoint.pt", "run", "sharded"}
    assert (tmp_path / "run" / "checkpoint-8" / "pruner.pt").is_file()

"""A script run by two processes that talk through gloo, as `torchrun --nproc-per-node 2` starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TIMEOUT = 240


def expect_agreement(script: str, folder: Path) -> None:
    """Run the text `script` in two workers; each must print "agreed" once and end well."""
    file = folder / "worker.py"
    file.write_text(script, encoding="utf-8")
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, str(file)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("agreed") == 2

"""How many of torch's threads small work is given to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

LARGE_WORK = 1e8
"""Elements from which on work is shared out: it takes about a tenth of a second then. Threads meet at the
end of each operation, and where another process holds a core, they wait there until it is scheduled away,
which takes longer than a small operation itself.
"""


@contextmanager
def threads_for(work: float) -> Iterator[None]:
    """While open, torch runs on one thread unless its operations are of at least `LARGE_WORK` elements."""
    before = torch.get_num_threads()
    if work < LARGE_WORK and before > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)

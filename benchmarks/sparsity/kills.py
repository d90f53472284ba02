"""Kill a training at a random step, start it again, and compare every loss and weight with an unkilled run.

The training is `examples.resumable_pruning`, in processes of its own.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.training.cells import write_json
from openwork.support.progress import progress_bar

STEPS, EVERY = 60, 7
_MOVING = 40
# Spread a kill over the work that follows a step, the writing of a checkpoint included.
_LONGEST_DELAY_SECONDS = 0.03


@dataclass(frozen=True)
class Case:
    """One way to prune, as the example's options."""

    pattern: str
    schedule: str
    criterion: str = "magnitude"

    def command(self, checkpoint: Path, steps: int, every: int) -> list[str]:
        """The example's command line."""
        options = {**asdict(self), "steps": steps, "every": every, "checkpoint": checkpoint}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return [sys.executable, "-m", "examples.resumable_pruning", *words]


CASES = (
    Case("2:4", f"gradual:cubic:0:{_MOVING}:every=5", "snip-momentum"),
    Case("2:4", f"sr-ste:{_MOVING}:2e-4"),
    Case("4x1:0.75", f"progressive:2:{_MOVING // 2}"),
    Case("4:16", "one-shot"),
)
Line = tuple[int, str, str]
"""A step, its loss in hexadecimal, and a digest of all weights and masks after it."""


@dataclass(frozen=True)
class Outcome:
    """What one kill came to.

    killed_after: the last step that was heard of. resumed_at: the first step of the second process.
    differences: how many lines, of both processes, differ from the unkilled run's.
    """

    case: Case
    killed_after: int
    resumed_at: int
    differences: int

    @property
    def same(self) -> bool:
        """Whether the resumed run went through the same bits."""
        return self.differences == 0


def _line(text: str) -> Line:
    said = json.loads(text)
    return said["step"], said["loss"], said["state"]


def whole_run(command: Sequence[str]) -> list[Line]:
    """Every line of a run that is left alone. Raises RuntimeError, with its words, if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The training {' '.join(command)} failed:\n{done.stderr}")
    return [_line(text) for text in done.stdout.splitlines()]


def killed_run(command: Sequence[str], after: int, delay: float) -> list[Line]:
    """The lines of a run that is killed (SIGKILL) `delay` seconds after it has told of step `after`."""
    heard: list[Line] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for text in process.stdout:
            heard.append(_line(text))
            if heard[-1][0] >= after:
                time.sleep(delay)
                process.kill()
                break
        # A line that the kill cut short says nothing.
        heard += [_line(text) for text in process.stdout if text.endswith("}\n")]
    return heard


def trial(case: Case, reference: Sequence[Line], folder: Path, chance: random.Random) -> Outcome:
    """Kill one run of `case` at a random step and let it go on. folder: for its checkpoint, empty."""
    steps = len(reference)
    command = case.command(folder / "checkpoint.pt", steps, EVERY)
    before = killed_run(command, chance.randint(1, steps - 1), chance.uniform(0, _LONGEST_DELAY_SECONDS))
    after = whole_run(command)
    expected = {line[0]: line for line in reference}
    differences = sum(expected.get(line[0]) != line for line in (*before, *after))
    unfinished = not after or after[-1][0] != steps
    resumed_at = after[0][0] if after else steps
    return Outcome(case, before[-1][0] if before else 0, resumed_at, differences + unfinished)


def trials(
    count: int,
    seed: int,
    cases: Sequence[Case] = CASES,
    steps: int = STEPS,
    told: Callable[[int], None] = lambda done: None,
) -> list[Outcome]:
    """`count` kills at moments drawn with `seed`, the cases in turn; `told` hears how many are done."""
    chance = random.Random(seed)
    references: dict[Case, list[Line]] = {}
    found = []
    with tempfile.TemporaryDirectory(prefix="openwork-kills-") as root:
        for number in range(count):
            case = cases[number % len(cases)]
            if case not in references:
                references[case] = whole_run(case.command(Path(root) / f"{number}.pt", steps, steps))
            folder = Path(root) / str(number)
            folder.mkdir()
            found.append(trial(case, references[case], folder, chance))
            told(number + 1)
    return found


def main(count: int, seed: int, console: Console, work: Path) -> None:
    """Run, print each outcome, write them as JSON."""
    with progress_bar("killing", count, sys.stderr.isatty()) as advance:
        found = trials(count, seed, told=lambda done: advance(done))
    for outcome in found:
        case = outcome.case
        console.print(
            f"{case.pattern} {case.schedule} {case.criterion}: killed after step {outcome.killed_after}, "
            f"went on with step {outcome.resumed_at}: {'the same bits' if outcome.same else 'DIFFERENT'}",
            highlight=False,
            soft_wrap=True,
        )
    same = sum(outcome.same for outcome in found)
    console.print(f"{same} of {count} killed runs went on with the same losses, weights and masks.")
    work.mkdir(parents=True, exist_ok=True)
    write_json(work / "kills.json", {"seed": seed, "steps": STEPS, "kills": [asdict(o) for o in found]})

"""The cost models of `openwork predict`: times kernels, fits what they cost, writes the parameters.

python -m benchmarks.cost_model                     what runs here is timed, the rest counted; five minutes
python -m benchmarks.cost_model avx2                times and fits one instruction set of this machine
python -m benchmarks.cost_model --write             and writes src/openwork/prediction/machines/

Needs a CPU with AVX-512 VNNI and nothing else running on it. docs/choosing_patterns.md says what the models
are for.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict

from openwork.backends.library import native
from openwork.prediction.machines import FOLDER, Machine, machine_named
from openwork.support.files import write_atomic

from . import counted, gains, here, measure, published

HERE = tuple(here.TILE_ROWS)
OTHERS = ("amx", *(machine.name for machine in counted.MACHINES))


def machines(wanted: tuple[str, ...]) -> Iterator[Machine]:
    """The machines of these names; those that are not timed now are taken as they were fitted last."""
    fitted = {}
    for isa in HERE:
        if isa in wanted:
            times = list(measure.times(isa))
            fitted[isa] = gains.with_gains(here.fit_times(isa, times), times)
            print(*gains.by_pattern(fitted[isa], times), sep="\n")
            yield fitted[isa]
        elif isa in {machine.like for machine in counted.MACHINES}:
            fitted[isa] = machine_named(isa)
    if "amx" in wanted:
        yield published.fit_gains(fitted["avx512vnni"])
    yield from (counted.count(m, fitted[m.like]) for m in counted.MACHINES if m.name in wanted)


def shown(machine: Machine) -> str:
    """What the fit of a machine is worth, in a line."""
    parts = [f"{machine.name}, {machine.basis}, {machine.gigahertz:g} GHz"]
    for what, error in (("times", machine.error), ("gains", machine.gains)):
        if error is not None:
            parts.append(
                f"{what}: median factor {error.median:.3f}, worst {error.worst:.2f} of {error.points} figures"
            )
    return "; ".join(parts)


def write(machine: Machine) -> None:
    """Replace the parameters of the machine."""
    document = json.dumps(asdict(machine), indent=1)
    write_atomic(FOLDER / f"{machine.name}.json", [document.encode() + b"\n"])


def main(arguments: list[str] | None = None) -> None:
    """Parse, time, fit, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("machines", nargs="*", metavar="MACHINE", help=f"of {', '.join((*HERE, *OTHERS))}")
    parser.add_argument("--write", action="store_true", help="replace the parameters in the package")
    given = parser.parse_args(arguments)
    wanted = tuple(given.machines) or (*HERE, *OTHERS)
    for name in wanted:
        if name not in (*HERE, *OTHERS):
            parser.error(f"There is no machine {name!r}; name some of {', '.join((*HERE, *OTHERS))}.")
        if name in HERE and name not in native().isas():
            parser.error(f"The machine {name!r} is fitted where it runs, and it does not run here.")
    for machine in machines(wanted):
        print(shown(machine))
        if given.write:
            write(machine)


if __name__ == "__main__":
    main()

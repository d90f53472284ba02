"""The fit of the cost models finds known costs, and its command refuses what it does not know."""

from __future__ import annotations

from dataclasses import replace

import pytest
from benchmarks.cost_model import counted, fit, gains, here, measure, published
from benchmarks.cost_model.__main__ import main

from openwork.engine.problem import MatrixProduct
from openwork.prediction.cost import seconds
from openwork.prediction.machines import FormCost, machine_named


def test_a_fit_finds_the_costs_that_made_the_times() -> None:
    true = machine_named("avx2")
    times = [
        replace(time, seconds=seconds(true, time.count, time.rows, time.sizes.n))
        for time in measure.times("scalar", (MatrixProduct(64, 64), MatrixProduct(32, 128)), (1, 16, 64))
        if time.count.form in true.forms and time.count.body == "windows"
    ]
    forms = {time.count.form for time in times}
    start = replace(true, forms={form: FormCost(1.0, 1.0) for form in forms}, output=0.1, call=10.0)
    names = [f"{form}.row" for form in sorted(forms)]

    def predicted(machine: object) -> list[float]:
        return [seconds(machine, time.count, time.rows, time.sizes.n) for time in times]  # type: ignore[arg-type]

    begun = replace(start, forms={form: replace(true.forms[form], row=1.0) for form in forms})
    begun = replace(begun, output=true.output, call=true.call)
    found = fit.fitted(begun, names, predicted, [time.seconds for time in times])
    assert found.error is not None
    assert found.error.worst < 1.001
    for form in forms:
        assert found.forms[form].row == pytest.approx(true.forms[form].row, rel=0.01)
    assert gains.with_gains(found, times).gains == fit.Error(1.0, 1.0, found_points(times))


def found_points(times: list[measure.Time]) -> int:
    return len({(time.pattern, time.sizes, time.rows) for time in times if time.pattern != measure.DENSE})


def test_parameters_in_the_package_are_those_that_the_command_makes() -> None:
    vnni = machine_named("avx512vnni")
    assert published.fit_gains(vnni) == machine_named("amx")
    for machine in counted.MACHINES:
        assert counted.count(machine, machine_named(machine.like)) == machine_named(machine.name)
    assert set(here.TILE_ROWS) == {machine.like for machine in counted.MACHINES}


def test_an_unknown_machine_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["vax"])
    assert "There is no machine 'vax'; name some of avx512vnni, avx2, amx," in capsys.readouterr().err

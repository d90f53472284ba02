"""The demo's stages, one after another."""

import json
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from openwork.models import load_minilm
from openwork.support.machine import this_machine

from . import chart, corpus, table, texts
from .console import Narrator
from .engines import DENSE, Workshop, report_of
from .lineup import FP32, OURS, Lineup
from .measuring import Agreement, Race, agreement, embeddings, quality, race, test_texts
from .plan import Plan, batch_seconds
from .results import Results
from .runners import Runner
from .settings import HEADLINE, PATTERNS, SHAPES, Settings
from .store import Store, write_json
from .texts import FloatArray

LIBRARIES = ("openwork", "numpy", "onnxruntime", "openvino", "nncf", "torch")


def run(settings: Settings, console: Console) -> Results:
    """Make everything that is missing in the work folder, measure it all, and write table, JSON and chart."""
    narrator = Narrator(console)
    machine = this_machine(LIBRARIES)
    console.print(machine.line(settings.threads), style="dim", highlight=False, soft_wrap=True)
    with narrator.stage("Corpus: docstrings of the standard library and the installed packages"):
        found = corpus.load(settings.work / "corpus.json")
        narrator.say(f"{len(found.train):,} pairs to train and calibrate, {len(found.test):,} held out")
    with narrator.stage("Dense model: load, quantize, export"):
        shop = _workshop(settings, found)
        narrator.say(shop.plan.sentence())
        shop.dense_float()
        shop.quantized(DENSE)
    _make_sparse(shop, narrator)
    with narrator.stage("Engines: time dense against sparse for each layer, and pick"):
        engines = shop.engines()
    with narrator.stage("Peers: quantize with their own tools"):
        lineup = Lineup(shop)
    with narrator.stage("Quality on the held-out pairs"):
        made = _embeddings(shop, lineup.for_quality())
        scores = {name: quality(values, made[FP32]) for name, values in made.items()}
    with narrator.stage("Agreement with ONNX Runtime on the same Q/DQ models"):
        agreements = _agreements(shop, lineup, made)
    with narrator.stage(f"Latency, interleaved, {settings.threads} threads"):
        races = [_race(shop, lineup, shape) for shape in SHAPES]
    reports = {pattern: report_of(path) for pattern, path in engines.items()}
    results = Results(machine, settings, shop.plan, scores, races, reports, narrator.seconds, agreements)
    _show(results, settings.work, console)
    return results


def _workshop(settings: Settings, found: corpus.Corpus) -> Workshop:
    """The workshop of a run, with the plan of an earlier run that was asked for the same."""
    teacher, store = load_minilm(), Store(settings.work)

    def make(path: Path) -> None:
        write_json(path, Plan.fitted(settings, batch_seconds(teacher, settings.threads)).record())

    asked = (settings.threads, settings.minutes, settings.distill_minutes, settings.full)
    stored = store.file("plan.json", {"asked": asked}, make)
    plan = Plan.of_record(json.loads(stored.read_text(encoding="utf-8")))
    return Workshop(settings, store, found.cut(plan.pairs), plan, teacher)


def _make_sparse(shop: Workshop, narrator: Narrator) -> None:
    for pattern in PATTERNS:
        minutes = shop.plan.minutes[pattern]
        with narrator.stage(
            f"{pattern}: prune (SparseGPT), distil for {minutes:.1f} minutes, quantize, export"
        ):
            shop.quantized(pattern)
            while shop.notes:
                narrator.say(shop.notes.pop(0))


def _embeddings(shop: Workshop, runners: Iterable[Runner]) -> dict[str, FloatArray]:
    """Of all held-out texts, by the runner's name."""
    data = list(texts.batches(shop.tokenizer, test_texts(shop.corpus.test)))
    return {runner.name: embeddings(runner, data, shop.store) for runner in runners}


def _agreements(shop: Workshop, lineup: Lineup, made: dict[str, FloatArray]) -> dict[str, Agreement]:
    witnesses = _embeddings(shop, lineup.witnesses.values())
    return {name: agreement(made[name], witnesses[w.name]) for name, w in lineup.witnesses.items()}


def _race(shop: Workshop, lineup: Lineup, shape: tuple[int, int]) -> Race:
    return race(shape, lineup.for_shape(shape), lineup.witnesses, shop.inputs(shape), shop.settings.seconds)


def _show(results: Results, work: Path, console: Console) -> None:
    write_json(work / "results.json", results.record())
    chart.draw(results, work / "results.png")
    console.print()
    console.print(table.layers(results.reports[HEADLINE], OURS[HEADLINE]))
    for line in table.reasons(results.reports[HEADLINE]):
        console.print(line, highlight=False)
    console.print()
    console.print(table.comparison(results))
    for line in results.sentences():
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"\nWrote {work / 'results.json'} and {work / 'results.png'}. Now search:", highlight=False)
    console.print("  make demo ARGS='--query \"sort a list in place\"'", highlight=False)

"""What the training benchmarks share: the fixed split, the batches, stored cells, spreads, tables, charts."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.training import chart, classifier, digits
from benchmarks.training.cells import Cells
from benchmarks.training.classifier import Recipe
from benchmarks.training.grid import Grid
from benchmarks.training.spread import Spread
from PIL import Image
from rich.console import Console
from torch import nn

from openwork.models import small_resnet


@pytest.fixture(scope="module")
def data() -> digits.Digits:
    return digits.load()


def test_the_split_is_fixed_stratified_and_disjoint(data: digits.Digits) -> None:
    parts = (data.train, data.validation, data.test)
    assert [len(part) for part in parts] == [1_000, 200, 597]
    for part in parts:
        shares = np.bincount(part.labels, minlength=10) / len(part)
        assert np.abs(shares - 0.1).max() < 0.012
    pixels = [{image.numpy().tobytes() for image in part.images} for part in parts]
    assert sum(map(len, pixels)) == len(set().union(*pixels)) == 1_797
    again = digits.load()
    assert torch.equal(data.test.images, again.test.images)
    assert torch.equal(data.validation.images, again.validation.images)


def test_the_training_part_is_normalized(data: digits.Digits) -> None:
    assert float(data.train.images.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(data.train.images.std()) == pytest.approx(1.0, abs=1e-5)
    assert float(data.train.images.min()) == pytest.approx(data.background, abs=1e-5)


def test_a_batch_depends_on_seed_and_number_alone(data: digits.Digits) -> None:
    batches, again, other = (digits.Batches(data, 64, seed) for seed in (3, 3, 4))
    late = batches[40].images
    assert torch.equal(late, again[40].images)
    assert not torch.equal(late, other[40].images)
    assert not torch.equal(late, batches[41].images)


def test_an_epoch_visits_no_image_twice(data: digits.Digits) -> None:
    unmoved = digits.Digits(
        digits.Part(torch.arange(100.0)[:, None, None, None].expand(100, 1, 8, 8), torch.arange(100)),
        data.validation,
        data.test,
        0.0,
    )
    batches = digits.Batches(unmoved, 30, seed=1)
    first = [int(label) for number in range(3) for label in batches[number].labels]
    assert len(set(first)) == 90
    assert first != [int(label) for number in range(3, 6) for label in batches[number].labels]


def test_images_move_by_at_most_one_pixel() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 3, 4] = 1.0
    generator = torch.Generator().manual_seed(0)
    moved = digits.shifted(image.expand(500, 1, 8, 8), -2.0, generator)
    _, _, rows, columns = (moved == 1.0).nonzero(as_tuple=True)
    assert len(rows) == 500
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == {
        (row, column) for row in (2, 3, 4) for column in (3, 4, 5)
    }
    # What comes in from the edge is background.
    assert set(moved.unique().tolist()) == {-2.0, 0.0, 1.0}


@pytest.mark.parametrize("size", [0, 1_001])
def test_a_batch_of_impossible_size_is_refused(data: digits.Digits, size: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 1000 images, but {size} were asked for"):
        digits.Batches(data, size, 0)


def test_the_rate_rises_then_follows_a_cosine_to_zero() -> None:
    recipe = Recipe(100, learning_rate=0.2, warmup_steps=10)
    assert recipe.rate(0) == pytest.approx(0.02)
    assert recipe.rate(50) == pytest.approx(0.1)
    assert recipe.rate(100) == pytest.approx(0.0, abs=1e-15)
    assert max(recipe.rate(step) for step in range(100)) < 0.2


@pytest.mark.parametrize(("steps", "rate"), [(0, 0.1), (10, 0.0), (10, math.inf)])
def test_recipes_that_train_nothing_are_refused(steps: int, rate: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Recipe(steps, learning_rate=rate)


def test_training_learns_and_repeats_itself(data: digits.Digits) -> None:
    def trained() -> nn.Module:
        torch.manual_seed(0)
        model = small_resnet(widths=(16, 32))
        classifier.train(model, data, Recipe(60, batch_size=32, warmup_steps=5), seed=0)
        return model

    model, again = trained(), trained()
    assert classifier.accuracy(model, data.validation) > 0.6
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_training_stops_where_the_loss_is_not_finite(data: digits.Digits) -> None:
    torch.manual_seed(0)
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        classifier.train(
            nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), data, Recipe(20, 8, 1e30, warmup_steps=0), 0
        )


def test_accuracy_counts_and_keeps_the_mode() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    images = torch.randn(300, 1, 8, 8)
    labels = model(images).argmax(1)
    labels[:30] = (labels[:30] + 1) % 10
    assert classifier.accuracy(model.train(), digits.Part(images, labels)) == pytest.approx(0.9)
    assert model.training


def test_a_finished_cell_is_not_made_again(tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, object]:
        made.append(1)
        return {"accuracy": 0.5, "pair": (1, 2)}

    settings = {"steps": (1, 2)}
    first = Cells(tmp_path).result("2:4 one-shot", settings, make)
    assert (
        Cells(tmp_path).result("2:4 one-shot", settings, make) == first == {"accuracy": 0.5, "pair": [1, 2]}
    )
    assert len(made) == 1
    Cells(tmp_path).result("2:4 one-shot", {"steps": (1, 3)}, make)
    assert len(made) == 2
    fresh = Cells(tmp_path, fresh=True)
    fresh.result("2:4 one-shot", {"steps": (1, 3)}, make)
    assert len(made) == 3
    assert fresh.get("2:4 one-shot", {"steps": (1, 3)}) is not None


def test_names_that_make_the_same_file_name_do_not_meet(tmp_path: Path) -> None:
    cells = Cells(tmp_path)
    assert cells.path("2:4@2") != cells.path("2:4:2")


def test_a_cell_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    def stop() -> dict[str, object]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cells(tmp_path).result("cell", {}, stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "[]", '{"cell": "x"}'])
def test_a_file_that_is_no_cell_is_refused(tmp_path: Path, content: str) -> None:
    cells = Cells(tmp_path)
    cells.path("x").write_text(content)
    with pytest.raises(ValueError, match=r"is not a stored result .* delete it"):
        cells.get("x", {})


def test_spreads_are_the_sample_s() -> None:
    values = (0.97, 0.99, 0.98)
    spread = Spread.of(values)
    assert spread.mean == pytest.approx(np.mean(values), rel=1e-15)
    assert spread.deviation == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert spread.percent() == "98.00 ± 1.00"
    assert Spread.of([0.5]).percent() == "50.00"
    with pytest.raises(ValueError, match="at least one value"):
        Spread.of([])


def test_within_means_one_deviation_below() -> None:
    dense = Spread.of((0.97, 0.99, 0.98))
    assert Spread.of([0.9701]).within(dense)
    assert not Spread.of([0.9699]).within(dense)
    assert Spread.of([1.0]).within(dense)


def _grid() -> Grid:
    cells = {("dense", "2:4"): Spread.of((0.9, 0.8)), ("one-shot", "4:16"): Spread.of([0.7])}
    return Grid("Title", ("dense", "one-shot"), ("2:4", "4:16"), "dense", cells)


def test_a_grid_shows_what_is_there_and_what_is_missing() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(_grid().table())
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["dense", "85.00", "±", "7.07", "-"] in lines
    assert ["one-shot", "-", "70.00"] in lines
    assert _grid().markdown().splitlines()[-1] == "| one-shot | - | 70.00 |"
    assert json.loads(json.dumps(_grid().record()))["cells"][0]["values"] == [0.9, 0.8]


def test_a_cell_outside_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="no such row or column"):
        Grid("Title", ("dense",), ("2:4",), "dense", {("other", "2:4"): Spread.of([1.0])})


def test_the_chart_draws_a_point_for_each_cell(tmp_path: Path) -> None:
    target = tmp_path / "chart.png"
    chart.draw([_grid(), _grid()], "a machine", target)
    pixels = np.asarray(Image.open(target).convert("RGB")).reshape(-1, 3)
    for colour in (chart.REFERENCE, chart.SHADES[0]):
        wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        assert (pixels == wanted).all(1).sum() > 100
    assert [path.name for path in tmp_path.iterdir()] == ["chart.png"]

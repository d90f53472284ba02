"""The stem and the classifier of a network that reads images stay dense unless they are asked for by name."""

from __future__ import annotations

import pytest
from torch import nn

from convolutional_networks import SMALL, fill, image
from openwork.models import small_resnet
from openwork.sparsity import Pruner, layer_table, permute
from openwork.sparsity.interop.asp import AutomaticSparsity
from openwork.sparsity.masks.ends import CLASSIFIER, EVERY, STEM, ends

ENDS = {
    "resnet": ("conv1", "fc"),
    "resnext": ("conv1", "fc"),
    "xception": ("conv1", "fc"),
    "mobilenet_v2": ("features.0.0", "classifier.1"),
    "mobilenet_v3": ("features.0.0", "classifier.3"),
    "efficientnet": ("features.0.0", "classifier.1"),
    "densenet": ("features.conv0", "classifier"),
    "convnext": ("features.0.0", "classifier.2"),
}


@pytest.mark.parametrize("name", SMALL)
def test_the_ends_of_every_family_are_found(name: str) -> None:
    stem, classifier = ENDS[name]
    assert ends(SMALL[name]()) == {stem: STEM, classifier: CLASSIFIER}


def test_they_stay_dense_and_the_report_says_so() -> None:
    pruner = Pruner(small_resnet(), "4x1:0.75")
    assert "conv1" not in pruner.prunables
    assert "fc" not in pruner.prunables
    assert "layer1.0.conv1" in pruner.prunables
    rows = {line.split()[0]: line for line in str(pruner.report()).splitlines()}
    assert rows["conv1"].endswith(STEM)
    assert rows["fc"].endswith(CLASSIFIER)


@pytest.mark.parametrize(
    ("pattern", "include", "pruned"),
    [
        ("4x1:0.75", ("*", "fc"), {"fc"}),
        ("4x1:0.75", ("conv1",), {"conv1"}),
        ("4x1:0.75", EVERY, {"conv1", "fc"}),
        ({"fc": "2:4", "*": "4x1:0.75"}, ("*",), {"fc"}),
        ({"layer*": "2:4", "*": "4x1:0.75"}, ("*",), set()),
        ({"*": "4x1:0.75", "fc": "2:4"}, ("*",), set()),
    ],
)
def test_a_name_prunes_them(pattern: object, include: tuple[str, ...], pruned: set[str]) -> None:
    rows = {row.name: row for row in layer_table(small_resnet(), pattern, include)}
    assert {name for name in ("conv1", "fc") if rows[name].eligible} == pruned


def test_what_is_excluded_stays_excluded() -> None:
    rows = {row.name: row for row in layer_table(small_resnet(), "2:4", EVERY, ["fc"])}
    assert rows["fc"].reason == 'The name matches the exclusion "fc".'


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)),
        nn.Sequential(nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 8)),
        nn.Sequential(nn.Linear(8, 8), nn.Conv2d(4, 8, 3), nn.Linear(8, 8)),
        nn.Conv2d(4, 8, 3),
    ],
    ids=["no convolution", "no image", "no stem", "one layer"],
)
def test_other_models_have_no_ends(model: nn.Module) -> None:
    assert ends(model) == {}


def test_a_backbone_has_a_stem_alone() -> None:
    assert ends(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))) == {"0": STEM}


def test_asp_keeps_its_own_rules() -> None:
    model = nn.Sequential(nn.Conv2d(4, 16, 3), nn.Flatten(), nn.Linear(16, 16), nn.Linear(16, 16))
    sparsity = AutomaticSparsity()
    sparsity.init_model_for_pruning(model, whitelist=[nn.Linear])
    assert set(sparsity.pruner.prunables) == {"2", "3"}


def test_a_permutation_counts_what_is_pruned() -> None:
    model = fill(SMALL["resnet"]())
    layers = {row.name for row in permute(model, image(32, 32), "2:4").layers}
    named = {row.name for row in permute(model, image(32, 32), "2:4", include=EVERY).layers}
    assert named - layers == {"fc.weight"}

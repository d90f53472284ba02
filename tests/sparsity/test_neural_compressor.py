"""Reading Neural Compressor's patterns and configurations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openwork.sparsity import Pruner
from openwork.sparsity.interop.neural_compressor import (
    DEFAULTS,
    ImportedPruning,
    import_config,
    import_pattern,
)
from openwork.sparsity.pruner.options import PrunerOptions
from openwork.sparsity.pruner.regularizer import GroupLasso
from openwork.sparsity.pruner.schedule import Gradual, OneShot

SEED = 51


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Linear(16, 16)
        self.layer1 = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU())
        self.layer2 = nn.Linear(16, 32)
        self.narrow = nn.Linear(32, 10)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.layer2(self.embeddings(x))))  # type: ignore[no-any-return]


def network() -> Network:
    torch.manual_seed(SEED)
    return Network()


def imported(model: nn.Module | None = None, **config: Any) -> ImportedPruning:
    (single,) = import_config(config, model or network())
    return single


@pytest.mark.parametrize(
    ("theirs", "target", "ours"),
    [
        ("2:4", None, "2:4"),
        ("1:4", None, "3:4"),
        ("3:4", 0.75, "1:4"),
        ("12:16", None, "4:16"),
        ("4x1", None, "4x1:0.9"),
        ("4x1", 0.8, "4x1:0.8"),
        ("1x16", 0.5, "1x16:0.5"),
        ("1x1", 0.9, "1x1:0.9"),
        ("tile_pattern_4x1", 0.8, "4x1:0.8"),
    ],
)
def test_patterns_by_their_text(theirs: str, target: float | None, ours: str) -> None:
    assert str(import_pattern(theirs, target)) == ours


def test_channels_are_rows_or_columns_of_a_layer() -> None:
    assert str(import_pattern("channelx1", 0.5, (32, 16))) == "32x1:0.5"
    assert str(import_pattern("1xchannel", 0.5, (32, 16))) == "1x16:0.5"
    with pytest.raises(ValueError, match=r"'channelx1' spans a layer's channels; pass the layer's shape"):
        import_pattern("channelx1")


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        (
            "2:4",
            0.9,
            r'"2:4" prunes 0\.5 of the weights, but target_sparsity is 0\.9; set target_sparsity to 0\.5',
        ),
        ("4:4", None, '"4:4" must prune at least one and fewer than all'),
        ("mha", 0.5, "'mha' is none of Neural Compressor's patterns"),
        ("4x", 0.5, "'4x' is none of"),
        ("4x1", 1.0, r"asks for the fraction 1 of zeros"),
    ],
)
def test_other_patterns_are_refused(text: str, target: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        import_pattern(text, target)


def test_the_4x1_axis_is_outputs() -> None:
    """Four consecutive output rows of one input column live or die together."""
    model = network()
    pruner = imported(
        model, pattern="4x1", target_sparsity=0.5, pruning_type="magnitude", pruning_scope="local"
    ).pruner(model)
    pruner.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    mask = model.layer2.get_buffer("weight_mask")
    blocks = mask.reshape(8, 4, 16).float().mean(dim=1)
    assert set(blocks.unique().tolist()) == {0.0, 1.0}
    assert mask.float().mean() == 0.5


def test_the_defaults() -> None:
    found = imported()
    assert {name: str(pattern) for name, pattern in found.patterns.items()} == {
        "embeddings": "4x1:0.9",
        "layer1.0": "4x1:0.9",
        "layer2": "4x1:0.9",
    }
    assert (found.schedule, found.criterion, found.masks) == (OneShot(0), "snip-momentum", "schedule")
    assert found.options == PrunerOptions(scope="global", ceiling=0.98)
    assert found.notes == (
        "narrow stays dense: Neural Compressor leaves out [10, 32] for 4x1:0.9.",
        "head stays dense: Neural Compressor leaves out the last linear layer.",
    )


def test_names_are_regular_expressions_that_match_anywhere() -> None:
    assert set(imported(op_names=["layer"]).patterns) == {"layer1.0", "layer2"}
    assert set(imported(op_names=["layer1.*"]).patterns) == {"layer1.0"}
    assert set(imported(excluded_op_names=[".*embeddings*", "layer1"]).patterns) == {"layer2"}
    assert set(imported(pruning_op_types=["Conv"]).patterns) == {"layer1.0"}
    with pytest.raises(ValueError, match="No layer of the model is called like op_names="):
        imported(op_names=["encoder"])


def test_the_counts_of_n_m_are_turned_round_and_it_is_said() -> None:
    found = imported(pattern="1:4", target_sparsity=0.25, pruning_type="magnitude")
    assert {str(pattern) for pattern in found.patterns.values()} == {"3:4"}
    assert "1:4 prunes 1 of every 4; here that is 3:4, which counts the weights that are kept." in found.notes


@pytest.mark.parametrize("decay", ["exp", "cos", "linear", "cube"])
@pytest.mark.parametrize("end", [21, 23])
def test_every_update_has_neural_compressor_s_sparsity(decay: str, end: int) -> None:
    """Its formulas, written out: x counts whole updates, of which the last reaches the target."""
    target, start, every = 0.8, 1, 5
    found = imported(
        target_sparsity=target,
        start_step=start,
        end_step=end,
        pruning_frequency=every,
        sparsity_decay_type=decay,
    )
    updates = (end - start + every) // every - 1
    for update in range(updates + 1):
        x = update / updates
        theirs = {
            "exp": 1 - ((1 - target) ** (1 / updates)) ** update,
            "cos": target * (1 - math.cos(x * math.pi / 2)),
            "linear": target * x,
            "cube": target * x**3,
        }[decay]
        step = start + update * every
        # Two ways to the same number: a few roundings of numbers of at most 1.
        assert found.schedule(step) * target == pytest.approx(theirs, abs=16 * 2**-52)
        assert found.schedule(step + every - 1) == found.schedule(step)
    assert found.schedule.final_step == start + updates * every
    assert any("The target is reached at step 21" in note for note in found.notes) == (end == 23)


def test_a_schedule_without_updates_is_one_shot() -> None:
    assert imported(start_step=7, end_step=7).schedule == OneShot(7)
    assert imported(start_step=7, end_step=9, pruning_frequency=5).schedule == OneShot(7)
    assert imported(start_step=1, end_step=9, pruning_frequency=4).schedule == Gradual(
        "exponential", 1, 9, 4, density=1.0 - 0.9
    )


@pytest.mark.parametrize(
    ("kind", "criterion"),
    [
        ("magnitude", "magnitude"),
        ("gradient", "gradient"),
        ("snip", "snip"),
        ("snip_momentum", "snip-momentum"),
    ],
)
def test_criteria(kind: str, criterion: str) -> None:
    assert imported(pruning_type=kind).criterion == criterion
    found = imported(pruning_type=f"{kind}_progressive")
    assert found.criterion == criterion
    assert any("zeroes a block bit by bit between two updates" in note for note in found.notes)


def test_scopes_and_limits() -> None:
    local = imported(pruning_scope="local", max_sparsity_ratio_per_op=0.95).options
    assert (local.scope, local.ceiling) == ("local", 0.95)
    even = imported(target_sparsity=0.8, min_sparsity_ratio_per_op=0.8, max_sparsity_ratio_per_op=0.8)
    assert even.options.scope == "local"
    floor = imported(min_sparsity_ratio_per_op=0.2)
    assert any("min_sparsity_ratio_per_op=0.2 is not kept" in note for note in floor.notes)


def test_group_lasso() -> None:
    found = imported(reg_type="group_lasso", parameters={"reg_coeff": 0.05})
    assert found.options.regularizers == (GroupLasso(0.05),)
    assert any("Choose reg_coeff anew" in note for note in found.notes)
    assert imported(reg_type="group_lasso").options.regularizers == ()
    with pytest.raises(ValueError, match='reg_type is "group_lasso" or None'):
        imported(reg_type="ridge", reg_coeff=0.1)


@pytest.mark.parametrize(
    "config", [{"pruning_type": "pattern_lock"}, {"pruning_type": "magnitude", "lock_init_sparsity": True}]
)
def test_a_locked_pattern_is_that_of_the_zeros(config: dict[str, Any]) -> None:
    model = network()
    Pruner(model, {"layer2": "2:4"}).prune()
    again = network()
    again.load_state_dict({k: v for k, v in model.state_dict().items() if not k.endswith("_mask")})
    found = imported(again, pattern="2:4", target_sparsity=0.5, op_names=["layer2"], **config)
    pruner = found.pruner(again)
    assert torch.equal(again.layer2.get_buffer("weight_mask"), model.layer2.get_buffer("weight_mask"))
    optimizer = torch.optim.SGD(again.parameters(), lr=0.1)
    pruner.attach(optimizer)
    again(torch.ones(2, 16)).sum().backward()
    optimizer.step()
    pruner.verify()
    assert not again.layer2.weight[~model.layer2.get_buffer("weight_mask")].any()


def test_several_pruners_each_take_what_is_shared() -> None:
    model = network()
    found = import_config(
        {
            "target_sparsity": 0.5,
            "pruning_type": "magnitude",
            "pruning_configs": [
                {"op_names": ["layer1"], "pattern": "2x1"},
                {"op_names": ["layer2"], "pattern": "2:4", "pruning_type": None},
            ],
        },
        model,
    )
    assert [{name: str(p) for name, p in single.patterns.items()} for single in found] == [
        {"layer1.0": "2x1:0.5"},
        {"layer2": "2:4"},
    ]
    assert [single.criterion for single in found] == ["magnitude", "magnitude"]
    pruners = [single.pruner(model) for single in found]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for pruner in pruners:
        pruner.attach(optimizer)
        pruner.verify()
    assert len(import_config([{"op_names": ["layer1"]}, {"op_names": ["layer2"]}], model)) == 2


def test_their_configuration_object_is_read() -> None:
    class WeightPruningConfig:
        weight_compression = {**DEFAULTS, "target_sparsity": 0.5, "pattern": "2:4"}  # noqa: RUF012
        pruning_configs = [{"op_names": ["layer2"]}]  # noqa: RUF012

    (found,) = import_config(WeightPruningConfig(), network())
    assert {name: str(pattern) for name, pattern in found.patterns.items()} == {"layer2": "2:4"}


def test_a_gradual_run_reaches_the_target_over_all_layers() -> None:
    model = network()
    found = imported(model, target_sparsity=0.75, start_step=1, end_step=5, op_names=["embeddings", "layer2"])
    pruner = found.pruner(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    pruner.attach(optimizer)
    for step in range(6):
        optimizer.zero_grad()
        model(torch.randn(4, 16, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        optimizer.step()
    pruner.verify()
    # 64 + 128 blocks, of which each layer's share is a whole number.
    assert pruner.zeros == pytest.approx(0.75, abs=2 / 192)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pruning_frequence": 3}, "'pruning_frequence' is no key .*; did you mean \"pruning_frequency\""),
        (
            {"sparsity_decay_type": "cubic"},
            "sparsity_decay_type is one of exp, cos, linear, cube, but it is 'cubic'",
        ),
        ({"pruning_type": "retrain_free"}, "The pruning type 'retrain_free' has no counterpart"),
        ({"start_step": 5, "end_step": 3}, "end_step is at least start_step"),
        ({"pruning_scope": "layer"}, "The scope of a budget"),
        ({"pattern": "2:4"}, "set target_sparsity to 0.5"),
    ],
)
def test_bad_configurations_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        imported(**config)

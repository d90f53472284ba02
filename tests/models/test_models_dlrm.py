"""DLRM: sizes and names as published, and its function against a plain one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openwork.models import DLRM, DLRMConfig

SMALL = DLRMConfig(bottom=(4, 8, 6), tables=(20, 30, 7), top=(8, 1))


def test_the_sizes_are_mlperfs() -> None:
    config = DLRMConfig()
    with torch.device("meta"):
        model = DLRM(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    widths = [
        shapes[f"{part}.{i}.weight"]
        for part, count in (("bot_l", 3), ("top_l", 5))
        for i in range(0, 2 * count, 2)
    ]
    assert config.interactions == 479
    assert widths[:3] == [(512, 13), (256, 512), (128, 256)]
    assert widths[3:] == [(1024, 479), (1024, 1024), (512, 1024), (256, 512), (1, 256)]
    assert sum(name.startswith("emb_l.") for name in shapes) == 26
    assert shapes["emb_l.25.weight"] == (10_000, 128)
    # What a published checkpoint holds, and nothing else.
    assert set(model.state_dict()) == set(shapes)


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"tables": ()}, "needs two widths at the bottom, a table and a width at the top"),
        ({"bottom": (13,)}, "needs two widths at the bottom"),
        ({"tables": (10, 0)}, "every size of a DLRM must be positive"),
    ],
)
def test_sizes_that_make_no_model_are_refused(sizes: dict[str, tuple[int, ...]], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DLRMConfig(**sizes)  # type: ignore[arg-type]


def plain(model: DLRM, dense: torch.Tensor, bags: list[list[list[int]]]) -> np.ndarray:
    """The network in loops. bags: for each example the ids of each table."""
    first, made = model.bot_l(dense).detach().numpy(), []
    for vector, each in zip(first, bags, strict=True):
        tables = [table.weight.detach().numpy() for table in model.emb_l]  # type: ignore[union-attr]
        rows = [vector, *(table[ids].sum(0) for table, ids in zip(tables, each, strict=True))]
        pairs = [rows[i] @ rows[j] for i in range(len(rows)) for j in range(i)]
        made.append(np.concatenate([vector, pairs]))
    return model.top_l(torch.from_numpy(np.stack(made).astype(np.float32))).detach().numpy()


def test_one_id_many_ids_and_offsets_are_the_same_network() -> None:
    torch.manual_seed(0)
    model, dense = DLRM(SMALL).eval(), torch.randn(5, 4)
    one, many = torch.randint(0, 7, (5, 3)), torch.randint(0, 7, (5, 3, 2))
    np.testing.assert_allclose(
        model(dense, one).detach(), plain(model, dense, one.unsqueeze(2).tolist()), rtol=1e-5
    )
    found = model(dense, many)
    np.testing.assert_allclose(found.detach(), plain(model, dense, many.tolist()), rtol=1e-5)
    flat = many.transpose(0, 1).reshape(3, 10)
    offsets = torch.arange(0, 10, 2).expand(3, 5)
    assert torch.equal(model(dense, flat, offsets), found)

"""DLRM, a network that recommends, in plain torch.

Submodule and parameter names follow Meta's own (`bot_l.0.weight`, `emb_l.3.weight`, `top_l.8.bias`), so
tensors of its checkpoints load without renaming. Source: Naumov et al. 2019, "Deep Learning Recommendation
Model for Personalization and Recommendation Systems".
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

BagMode = Literal["sum", "mean", "max"]

MLPERF_TABLES = 26


@dataclass(frozen=True)
class DLRMConfig:
    """The sizes of a DLRM.

    Args:
        bottom: Widths from the dense features to the vector that stands beside the tables' rows.
        tables: Rows of each table; the rows are as wide as the last layer of `bottom`.
        top: Widths behind the interaction, whose own width is `interactions`.
        mode: What becomes of a bag's rows.

    Raises:
        ValueError: For sizes that are not positive, a single width at the bottom, or no table.
    """

    bottom: tuple[int, ...] = (13, 512, 256, 128)
    tables: tuple[int, ...] = (10_000,) * MLPERF_TABLES
    top: tuple[int, ...] = (1024, 1024, 512, 256, 1)
    mode: BagMode = "sum"

    def __post_init__(self) -> None:
        if len(self.bottom) < 2 or not self.tables or not self.top:
            raise ValueError(
                f"a DLRM needs two widths at the bottom, a table and a width at the top, but this is {self}."
            )
        if min(*self.bottom, *self.tables, *self.top) < 1:
            raise ValueError(f"every size of a DLRM must be positive, but this is {self}.")

    @property
    def width(self) -> int:
        """Of the rows of the tables."""
        return self.bottom[-1]

    @property
    def interactions(self) -> int:
        """What the top reads: the bottom's vector, and one product for each pair of vectors."""
        vectors = len(self.tables) + 1
        return self.width + vectors * (vectors - 1) // 2


def _layers(widths: tuple[int, ...], last: nn.Module) -> nn.Sequential:
    """Linear layers with a ReLU behind each but the last one, which ends with `last`."""
    pairs = list(pairwise(widths))
    functions = [*(nn.ReLU() for _ in pairs[1:]), last]
    return nn.Sequential(
        *(
            layer
            for (inputs, outputs), function in zip(pairs, functions, strict=True)
            for layer in (nn.Linear(inputs, outputs), function)
        )
    )


class Interaction(nn.Module):
    """Vectors [N, F, D] to [N, D + F (F - 1) / 2]: the first one, then the products of each with those before
    it, row after row of the strict lower triangle.

    Args:
        vectors: How many there are, F.
    """

    row: Tensor
    column: Tensor

    def __init__(self, vectors: int) -> None:
        super().__init__()
        row, column = torch.tril_indices(vectors, vectors, -1).unbind()
        self.register_buffer("row", row.clone(), persistent=False)
        self.register_buffer("column", column.clone(), persistent=False)

    def forward(self, vectors: Tensor) -> Tensor:
        products = torch.bmm(vectors, vectors.transpose(1, 2))
        return torch.cat([vectors[:, 0], products[:, self.row, self.column]], 1)


class DLRM(nn.Module):
    """Dense features through the bottom MLP, bags of ids through the tables, their pairwise products, the top
    MLP: the probability of a click.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: DLRMConfig | None = None) -> None:
        super().__init__()
        self.config = config or DLRMConfig()
        self.emb_l = nn.ModuleList(
            nn.EmbeddingBag(rows, self.config.width, mode=self.config.mode) for rows in self.config.tables
        )
        self.bot_l = _layers(self.config.bottom, nn.ReLU())
        self.interact = Interaction(len(self.config.tables) + 1)
        self.top_l = _layers((self.config.interactions, *self.config.top), nn.Sigmoid())
        self._fill()

    def _fill(self) -> None:
        """The published initialization."""
        for table in self.emb_l:
            assert isinstance(table, nn.EmbeddingBag)
            nn.init.uniform_(table.weight, -(table.num_embeddings**-0.5), table.num_embeddings**-0.5)
        for layer in (*self.bot_l, *self.top_l):
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=(2 / sum(layer.weight.shape)) ** 0.5)
                nn.init.normal_(layer.bias, std=layer.out_features**-0.5)

    def forward(self, dense: Tensor, indices: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Dense features [N, bottom[0]] and ids to [N, top[-1]].

        indices: [N, tables], one id for each table, or [N, tables, P], P for each. With `offsets`
        [tables, N], where each bag begins, the ids of all bags of a table follow each other: [tables, T].
        """
        first = self.bot_l(dense)
        bags = [self._bag(i, indices, offsets) for i in range(len(self.emb_l))]
        made: Tensor = self.top_l(self.interact(torch.stack([first, *bags], 1)))
        return made

    def _bag(self, table: int, indices: Tensor, offsets: Tensor | None) -> Tensor:
        rows = self.emb_l[table]
        assert isinstance(rows, nn.EmbeddingBag)
        if offsets is not None:
            return rows(indices[table], offsets[table])  # type: ignore[no-any-return]
        each = indices[:, table]
        # A bag of one is a row, which exporters write as a lookup in the place of a loop over bags.
        bags: Tensor = nn.functional.embedding(each, rows.weight) if each.ndim == 1 else rows(each)
        return bags

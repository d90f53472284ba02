"""What a student loses against its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Outputs:
    """What one model gives for a batch: hidden states f32[B, L, H], first to last,
    and embeddings f32[B, H].
    """

    states: Sequence[Tensor]
    embedding: Tensor


@dataclass(frozen=True)
class DistillationLoss:
    """The weighted sum of four differences between student s and teacher t, each 0 where they agree.

        last         |s - t|^2 / |t|^2 over the last hidden states of real tokens
        intermediate the same, mean over the states of all layers before the last
        embedding    mean of 1 - cosine(s, t) over the embeddings of the batch
        similarity   mean of (s s^T - t t^T)^2 over the pairs of different texts of the batch

    A weight of 0 leaves its part out. Sources: Jiao et al. 2020, "TinyBERT" (hidden states); Tung & Mori
    2019, "Similarity-preserving knowledge distillation".
    """

    last: float = 1.0
    intermediate: float = 0.0
    embedding: float = 5.0
    similarity: float = 20.0

    def __post_init__(self) -> None:
        weights = (self.last, self.intermediate, self.embedding, self.similarity)
        if not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
            raise ValueError(
                f"The weights of a loss are at least 0, and one of them is above 0, but they are {weights}."
            )

    def __call__(self, student: Outputs, teacher: Outputs, attention_mask: Tensor) -> Tensor:
        """The loss, a scalar; attention_mask i64[B, L] says which tokens are real."""
        parts = []
        if self.last:
            parts.append(self.last * state_difference(student.states[-1], teacher.states[-1], attention_mask))
        if self.intermediate:
            inner = list(zip(student.states[1:-1], teacher.states[1:-1], strict=True))
            differences = [state_difference(ours, theirs, attention_mask) for ours, theirs in inner]
            parts.append(self.intermediate * torch.stack(differences).mean())
        if self.embedding:
            parts.append(self.embedding * embedding_difference(student.embedding, teacher.embedding))
        if self.similarity and len(teacher.embedding) > 1:
            parts.append(self.similarity * similarity_difference(student.embedding, teacher.embedding))
        return torch.stack(parts).sum()


def state_difference(ours: Tensor, theirs: Tensor, attention_mask: Tensor) -> Tensor:
    """|ours - theirs|^2 / |theirs|^2 over the real tokens of hidden states [B, L, H]."""
    real = attention_mask.bool()
    target = theirs[real].float()
    return (ours[real].float() - target).square().sum() / target.square().sum()


def embedding_difference(ours: Tensor, theirs: Tensor) -> Tensor:
    """The mean of 1 - cosine over embeddings [B, H]."""
    return 1 - functional.cosine_similarity(ours.float(), theirs.float(), dim=1).mean()


def similarity_difference(ours: Tensor, theirs: Tensor) -> Tensor:
    """The mean squared difference of the similarities of different texts;
    embeddings [B, H] of unit length.
    """
    ours, theirs = ours.float(), theirs.float()
    count = len(ours)
    difference = (ours @ ours.T - theirs @ theirs.T).fill_diagonal_(0.0)
    return difference.square().sum() / (count * (count - 1))

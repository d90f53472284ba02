"""What the configurations of networks with attention heads have in common."""

from __future__ import annotations

from dataclasses import fields


class AttentionSizes:
    """A dataclass whose numbers are positive, and whose channels are shared out to heads."""

    hidden_size: int
    num_attention_heads: int

    def check_sizes(self) -> None:
        """Raise ValueError, in a sentence, for a number that is not positive or heads that do not divide."""
        for field in fields(self):  # type: ignore[arg-type]
            number = getattr(self, field.name)
            if not isinstance(number, bool | str) and not number > 0:
                raise ValueError(f"{type(self).__name__}.{field.name} must be positive, but it is {number}.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of num_attention_heads "
                f"{self.num_attention_heads}."
            )

    @property
    def head_size(self) -> int:
        """Channels of one attention head."""
        return self.hidden_size // self.num_attention_heads

"""Which weights may carry a pattern, and the masks that put it on them."""

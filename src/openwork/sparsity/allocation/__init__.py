"""Which layer takes which pattern."""

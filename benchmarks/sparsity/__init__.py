"""What each pruning schedule costs in accuracy at the same budget, and what pruning costs in time."""

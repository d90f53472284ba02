"""Q/DQ in a graph: its nodes, the dialect of a target, biases as integers."""

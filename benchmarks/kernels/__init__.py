"""openwork's kernels, layer by layer, against the limit of the machine and against other engines."""

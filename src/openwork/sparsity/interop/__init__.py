"""Other packages' pruning: their calls, files and training loops."""

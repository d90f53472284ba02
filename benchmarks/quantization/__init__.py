"""What INT8 costs in accuracy, dense and 2:4: after training by each observer, and with training."""

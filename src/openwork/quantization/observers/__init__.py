"""What watches one tensor over many batches and says which range of values to represent, by kind.

`openwork.quantization.observers.observer` holds the public names; `base` what all observers share.
"""

"""What watches one tensor over many batches and says which range of values to represent, by kind.

`openwork.quantization.observer` holds the public names; `base` what all observers share.
"""

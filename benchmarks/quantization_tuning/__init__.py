"""What equalization, bias correction and scale migration gain."""

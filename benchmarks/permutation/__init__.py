"""Channel permutation: what it keeps, against the exhaustive stripe search, and how long it takes."""

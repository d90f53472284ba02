"""The pruner: masks set and held while a model is trained."""

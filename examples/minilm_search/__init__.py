"""Sentence search with all-MiniLM-L6-v2: a dense model in, a faster sparse INT8 engine out."""

"""Rules that put what follows a step into it."""

"""Rules that gather many nodes into one function."""

"""How long an engine takes to load, and where the time goes."""

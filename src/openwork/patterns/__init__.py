"""What zeros may look like: patterns, how to find them, and the forms in which sparse weights are stored."""

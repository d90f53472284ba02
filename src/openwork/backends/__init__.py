"""What can run a step of a program."""

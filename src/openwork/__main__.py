"""`python -m openwork`."""

from openwork.cli import main

main()

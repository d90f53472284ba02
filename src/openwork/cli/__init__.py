"""The command line: parse, call, print."""

from openwork.cli.app import app, main

__all__ = ["app", "main"]

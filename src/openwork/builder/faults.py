"""What fails while a draft is made: what was asked for cannot be done, or making it has a defect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from openwork.builder.lower import BuildError, CrossingError
from openwork.support.texts import first_line


class RequestError(ValueError):
    """What was asked for cannot be done by any draft, such as shapes that do not fit in memory."""


class DraftError(BuildError):
    """A draft could not be made, which may be the fault of its native steps.

    cause : what failed, where that is a sentence for users; else this error, which is one.
    """

    def __init__(self, doing: str, error: Exception) -> None:
        self.fault = f"{doing} failed with {said(error)}"
        super().__init__(f"{self.fault}; please report this with the model.")
        self.cause = error if isinstance(error, ValueError) else self


@contextmanager
def drafting(doing: str) -> Iterator[None]:
    """Turn what fails into a DraftError that says while doing what; what another draft could not mend, and
    what is mended in another way, passes as it is."""
    try:
        yield
    except (CrossingError, RequestError, MemoryError, OSError):
        raise
    except Exception as error:
        raise DraftError(doing, error) from error


def said(error: Exception) -> str:
    """An error within a sentence: what it says, and of what kind it is where nobody wrote it for users."""
    text = first_line(error).rstrip(".")
    return f'"{text}"' if isinstance(error, ValueError) else f'{type(error).__name__} "{text}"'

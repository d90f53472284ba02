"""Which of a model's drafts becomes the engine: one that is right, and not slower than ONNX Runtime."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from openwork.backends.target import Target
from openwork.builder.draft import Draft, Order, idle_nodes
from openwork.builder.faults import DraftError, said
from openwork.builder.lower import BuildError, CrossingError
from openwork.builder.race import WHOLE, race
from openwork.builder.verification import Judge, Verdict
from openwork.engine.report import WholeTime
from openwork.runtime.engine import Engine, bound_engine, load

log = logging.getLogger(__name__)

Make = Callable[[Collection[str] | None, Draft | None], Draft]
"""Makes a draft without the nodes of these names, or, of None, of the model as it is; timed at the shapes of
another draft."""

MOST_MENDED = 8
"""Steps that differ from ONNX Runtime which are left to it one by one; then the whole model is."""


@dataclass(frozen=True)
class Chosen:
    """The draft that was chosen, what whole engines took, and what the user must know of the choice."""

    draft: Draft
    whole: tuple[WholeTime, ...]
    notes: tuple[str, ...]


class Chooser:
    """Makes and compares drafts.

    native, verify : of `openwork.build`. may_fall_back : whether ONNX Runtime may run the whole model.
    said : told, in a few words, what is being done.
    """

    def __init__(
        self,
        order: Order,
        make: Make,
        target: Target,
        said: Callable[[str], None],
        *,
        native: str,
        verify: bool,
        may_fall_back: bool,
    ) -> None:
        self.make, self.target, self.said = make, target, said
        self.native, self.verify, self.may_fall_back = native, verify, may_fall_back
        self.judge = Judge(order.source, target)
        self.notes: list[str] = []
        self._failed = False
        self._engines: dict[int, Engine] = {}

    def choose(self) -> Chosen:
        """The draft to write; raises BuildError where none is right, ModelError where the model is not."""
        draft = self._right(self._first())
        whole: tuple[WholeTime, ...] = ()
        race_it = self.native == "on" and self.may_fall_back and draft.native and not draft.decided.pruned
        if race_it:
            draft, whole = self._fastest(draft)
        # What ONNX Runtime does not run either is the model's fault, which a note says.
        if self._failed and (self.judge.sample is not None or not self.verify):
            self.notes.append("Please report this failure with the model.")
        return Chosen(draft, whole, tuple(dict.fromkeys(self.notes)))

    def confirm(self, path: Path) -> None:
        """Load the written engine and run it once; raises BuildError where it does not load, or does not run
        though the model in ONNX Runtime did."""
        if not self.verify:
            return
        try:
            engine = load(path, self.target.threads)
        except (ValueError, ImportError) as error:
            raise BuildError(
                f"The engine of this model cannot be loaded, so it was not kept: {_without(error, path)}"
            ) from error
        feed = self.judge.sample
        if feed is not None:
            try:
                engine.run(feed)
            except ValueError as error:
                raise BuildError(
                    f"The engine of this model does not run, so it was not kept: {error}"
                ) from error

    def _first(self) -> Draft:
        if self.native == "off":
            return self._whole(None)
        try:
            return self.make((), None)
        except CrossingError as error:
            if not self.may_fall_back:
                raise
            self.notes.append(f"ONNX Runtime runs the whole model. {error}")
            return self._whole(None)
        except DraftError as error:
            return self._instead(error, None)

    def _whole(self, like: Draft | None) -> Draft:
        """The draft that leaves all to ONNX Runtime; what fails is what is wrong with the model."""
        try:
            return self.make(None, like)
        except DraftError as error:
            raise error.cause from error.cause.__cause__

    def _instead(self, error: DraftError, like: Draft | None) -> Draft:
        """The draft that leaves all to ONNX Runtime, in the place of one that could not be made."""
        if not self.may_fall_back:
            raise error.cause from error.cause.__cause__
        draft = self._whole(like)
        log.warning("%s. ONNX Runtime runs the whole model.", error.fault)
        self.notes.append(f"{error.fault}. ONNX Runtime runs the whole model.")
        self._failed = True
        return draft

    def _right(self, draft: Draft) -> Draft:
        """The draft, or one that leaves to ONNX Runtime what differs from it."""
        if not self.verify or draft.decided.pruned:
            return draft
        keep: set[str] = set()
        for _ in range(MOST_MENDED):
            found = self._verdict(draft)
            if found.difference is None:
                return draft
            self._blame(draft, found)
            if not draft.native:
                return draft
            if found.step is None:
                break
            keep |= draft.lowered.origins[found.step]
            try:
                draft = self.make(keep, draft)
            except DraftError as error:
                return self._instead(error, draft)
        return self._whole(draft)

    def _verdict(self, draft: Draft) -> Verdict:
        self.said("comparing with ONNX Runtime")
        try:
            found = self.judge.check(draft, self._engine(draft))
        except (ImportError, MemoryError, OSError):
            raise
        except Exception as error:
            found = Verdict(f"it does not run: {said(error)}")
        self.notes += [] if found.note is None else [found.note]
        return found

    def _blame(self, draft: Draft, found: Verdict) -> None:
        where = "" if found.step is None else f", first in the step '{found.step}'"
        said = f"The engine differs from the model in ONNX Runtime: {found.difference}{where}."
        if not draft.native:
            self.notes.append(f"{said} ONNX Runtime runs it wholly; without optimizations it differs.")
            return
        if not self.may_fall_back:
            raise BuildError(
                f"{said} Let ONNX Runtime run that part: without strict, and among the back ends."
            )
        log.error("%s ONNX Runtime runs that part.", said)
        self.notes.append(f"{said} ONNX Runtime runs that part; please report this with the model.")

    def _engine(self, draft: Draft) -> Engine:
        """The engine of a draft, in memory, made once."""
        if id(draft) not in self._engines:
            decided = draft.decided
            self._engines[id(draft)] = bound_engine(decided.program, decided.tensors, None, self.target)
        return self._engines[id(draft)]

    def _fastest(self, draft: Draft) -> tuple[Draft, tuple[WholeTime, ...]]:
        drafts = {"native": draft}
        try:
            joined = self._joined(draft)
            if joined is not None:
                drafts["joined"] = joined
            drafts[WHOLE] = self._whole(draft)
            engines = {name: self._engine(one) for name, one in drafts.items()}
            self.said("timing beside ONNX Runtime")
            result = race(engines, draft.feeds)
        except ValueError as error:
            self.notes.append(f"The engine was not timed beside the model in ONNX Runtime: {error}")
            return draft, ()
        except (ImportError, MemoryError, OSError):
            raise
        except Exception as error:
            return self._instead(DraftError("Timing the engine", error), draft), ()
        self.notes += (*result.notes, *_why(result.best))
        return drafts[result.best], result.times

    def _joined(self, draft: Draft) -> Draft | None:
        """The draft without the native steps that no product needs, where there are any and it is right."""
        idle = idle_nodes(draft)
        try:
            joined = self._right(self.make(idle, draft)) if idle else None
        except DraftError as error:
            log.warning("%s. The draft that it was for is left out.", error.fault)
            return None
        return joined if joined is not None and joined.native else None


def _why(name: str) -> list[str]:
    if name == WHOLE:
        return ["ONNX Runtime runs the whole model, since no native steps made it faster at every shape."]
    if name == "joined":
        return ["What stands between parts of ONNX Runtime without a product runs in ONNX Runtime too."]
    return []


def _without(error: Exception, path: Path) -> str:
    """The message without the name of a file that is not kept."""
    return str(error).removeprefix(f"{path}: ")

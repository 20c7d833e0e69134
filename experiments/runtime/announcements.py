"""Nothing is silent for long: what takes more than a moment says so before it is done.

Of most of what a run does it is not known how long it takes. A phase that is over at once is not
worth a line; any other has one while it is under way.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator

MOMENT = 1.0
"""Seconds that need no explanation."""
IMPORTS = "loading JAX and what the experiment is made of"

_imports: threading.Timer | None = None


@contextlib.contextmanager
def announced(what: str) -> Iterator[None]:
    """Around something that may take long, such as what compiles: says what it is if it does.

    >>> with announced("counting"):
    ...     _ = sum(range(3))
    """
    timer = _started(what)
    try:
        yield
    finally:
        timer.cancel()


def begin() -> None:
    """The imports of `python -m experiments.NAME` begin; what asks for help is left in peace."""
    global _imports  # noqa: PLW0603
    words = getattr(sys, "orig_argv", sys.argv)
    if sys.argv[:1] == ["-m"] and not {"-h", "--help"} & {*words}:
        _imports = _started(IMPORTS)


def loaded() -> None:
    """The imports are done."""
    if _imports is not None:
        _imports.cancel()


def _started(what: str) -> threading.Timer:
    timer = threading.Timer(MOMENT, _say, (what,))
    timer.daemon = True
    timer.start()
    return timer


def _say(what: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # whoever listened is gone
        print(f"{what} ...", flush=True)

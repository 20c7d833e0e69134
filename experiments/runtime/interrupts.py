"""Ctrl-C, SIGTERM and SIGHUP stop a run in order: from its first import on, and wherever it is.

A signal raises `Interrupted`, or waits where `deferred` says so until a step is done and saved. An
exception can get lost on its way, in a callback of a library that lets none out: a thread sees to
it that it is raised again. The same thread ends the process where Python does not get to raise it,
in a compilation that takes minutes, and at a second Ctrl-C. A run folder is whole at any moment, so
that nothing is lost by this but what was under way.
"""

import contextlib
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

STOPS = tuple(
    int(getattr(signal, name))
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)  # Windows lacks the last
)
"""The signals that ask a run to stop."""
REMINDER = getattr(signal, "SIGALRM", None)
EVERY = 0.1  # seconds between two looks at whether an exception got lost
SAME = 0.2  # seconds within which signals are one: `timeout` signals a process and its group
PATIENCE = 3.0  # seconds that a library may keep Python from hearing of a signal


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to stop."""


def _nothing_yet() -> str:
    """The last line of a run that was stopped before it began."""
    words = list(getattr(sys, "orig_argv", sys.argv))
    words = ["python", *words[words.index("-m") :]] if "-m" in words else words
    return f"interrupted: nothing was saved yet; to start again, run: {shlex.join(words)}"


class _Run:
    """What is known of one run, with the handlers that it has put in the place of others."""

    def __init__(self) -> None:
        self.asked = threading.Event()  # set once Python has heard of a signal
        self.signal: int = signal.SIGINT  # which it heard of first
        self.heard: tuple[float, int] | None = None  # when the thread heard of which
        self.began = False  # whether the imports are done
        self.raised = False  # whether an exception is on its way
        self.over = False  # whether nothing is left that could be stopped
        self.told = False  # whether the last line is written
        self.deferring = 0
        self.tell: Callable[[], str] = _nothing_yet
        self.terminals = tuple(fd for fd in (1, 2) if _is_terminal(fd))
        self.before: dict[int, Any] = {}
        self.wakeup = -1
        self.inbox, self.outbox = socket.socketpair()
        self.outbox.setblocking(False)

    def install(self) -> None:
        for number in STOPS:
            before = signal.getsignal(number)
            # `nohup` means it. A shell may ignore Ctrl-C for what runs in its background, which
            # `kill -INT` is to stop all the same.
            if number == signal.SIGINT or before != signal.SIG_IGN:
                self.before[number] = before
        self.arm()
        fd = self.outbox.fileno()
        self.wakeup = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
        threading.Thread(target=self.watch, name="interrupts", daemon=True).start()

    def arm(self) -> None:
        for number in self.before:
            signal.signal(number, self.hear)

    def restore(self) -> None:
        signal.set_wakeup_fd(self.wakeup)
        # That of reminders stays: one may be under way, and would end a process without a handler.
        for number, handler in self.before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self.over = True
        self.outbox.close()  # which ends the thread

    def hear(self, number: int, _: Any) -> None:
        """What Python does about a signal."""
        if not self.asked.is_set():
            self.signal = number
            self.asked.set()
        if number == getattr(signal, "SIGHUP", None):
            self.let_go_of_terminals()
        if not self.began:
            self.end()
        self.interrupt()

    def interrupt(self, *_: Any) -> None:
        """Raises the exception, unless it is on its way or has arrived."""
        if self.over or self.deferring or _is_unwinding():
            return
        if REMINDER is not None:
            signal.signal(REMINDER, self.interrupt)
        self.raised = True
        raise Interrupted

    def watch(self) -> None:
        """The thread. It hears of signals at once, whatever keeps Python busy."""
        while True:
            self.inbox.settimeout(None if self.heard is None else EVERY)
            try:
                numbers = self.inbox.recv(64)
                if not numbers:
                    self.inbox.close()
                    return
            except TimeoutError:
                numbers = b""
            now = time.monotonic()
            for number in filter(STOPS.__contains__, numbers):
                if self.heard is None:
                    self.heard = now, number
                elif number == signal.SIGINT and now - self.heard[0] > SAME:
                    self.end()
            if self.heard is None or self.over:
                continue
            if not self.asked.is_set() and not self.deferring:
                if now - self.heard[0] > PATIENCE:
                    self.end()
            elif self.raised and REMINDER is not None:
                signal.pthread_kill(threading.main_thread().ident or 0, REMINDER)

    def end(self) -> None:
        """Ends the process here and now, as a run that was interrupted."""
        number = self.signal if self.asked.is_set() or self.heard is None else self.heard[1]
        with contextlib.suppress(Exception):
            if 1 in self.terminals:
                os.write(1, b"\x1b[?25h")  # the cursor, which a progress bar hides
            if not self.told:
                os.write(2, f"{self.tell()}\n".encode())
        os._exit(128 + number)

    def let_go_of_terminals(self) -> None:
        """A run must not fail of what it writes to a terminal that was closed."""
        for fd in self.terminals:
            if not _is_terminal(fd):
                with contextlib.suppress(OSError):
                    nothing = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(nothing, fd)
                    os.close(nothing)


_run: _Run | None = None
_is_lent = False  # whether the handlers go when the run does, since the process goes on


def begin() -> None:
    """Minds signals from the first import of a program on; does nothing in any other process.

    While `python -m experiments.NAME` imports this package, `sys.argv[0]` is still `-m`.
    """
    if sys.argv[:1] == ["-m"]:
        _install()


def enter(tell: Callable[[], str]) -> None:
    """The imports are done: from here on a signal raises `Interrupted`.

    Args:
        tell: gives the last line of a run that was stopped.
    """
    global _is_lent  # noqa: PLW0603
    if _run is None and _is_main_thread():
        _install()
        _is_lent = True
    if _run is not None:
        _run.tell = tell
        _run.began = True


def leave() -> None:
    """The run is over: nothing is raised any more."""
    if _run is not None:
        _run.over = True
    if _is_lent:
        _restore()


def rearm() -> None:
    """Puts the handlers in their place again, after a library may have set its own."""
    if _run is not None and _is_main_thread():
        _run.arm()


def is_asked() -> bool:
    """Whether a signal has asked this run to stop."""
    return _run is not None and _run.asked.is_set()


def arrived() -> int:
    """Says that the exception has arrived where a run ends; gives the exit code."""
    if _run is None:
        return 128 + signal.SIGINT
    _run.over = _run.told = True
    return 128 + _run.signal


@contextlib.contextmanager
def deferred() -> Iterator[threading.Event]:
    """An event that a signal sets, in a block in which none raises: no step is torn apart.

    Raises:
        Interrupted: where the block is entered or left after a signal.
    """
    if not _is_main_thread():
        yield threading.Event()
        return
    alone = _run is None
    own = _run or _install()
    own.began = True
    own.deferring += 1
    try:
        if own.asked.is_set():
            raise Interrupted
        yield own.asked
    finally:
        own.deferring -= 1
        if alone:
            _restore()
    if own.asked.is_set():
        raise Interrupted


def _install() -> _Run:
    global _run  # noqa: PLW0603
    _run = _Run()
    _run.install()
    return _run


def _restore() -> None:
    global _run, _is_lent
    if _run is not None:
        _run.restore()
    _run, _is_lent = None, False


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _is_unwinding() -> bool:
    """Whether what runs is what an exception of ours passes on its way, and shall do its work."""
    error = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, Interrupted):
            return True
        error = error.__context__
    return False


def _is_terminal(fd: int) -> bool:
    with contextlib.suppress(OSError):
        return os.isatty(fd)
    return False

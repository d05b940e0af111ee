"""Ctrl-C and SIGTERM: acknowledged at once, obeyed where nothing is lost, and obeyed at once the second time.

Python runs a signal's handler when the main thread is back from whatever library it is in, which may compile for a
minute. A thread that the operating system wakes by a pipe answers meanwhile. And what a handler raises is lost where
Python has nobody to give it to, as in a finalizer or in what the garbage collector calls: it is raised once more then.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AT_ONCE = "ended at once; complete checkpoints are kept"
_PAUSE = 0.05
"""Seconds until an exception that was lost is raised once more, elsewhere."""


@contextmanager
def acknowledged(answer: str, *, obey: bool) -> Iterator[Callable[[], bool]]:
    """Answers the first signal with a line on standard error, and ends the process at the second.

    Signals belong to the main thread: in any other one, and there alone, this changes nothing. Windows wakes no thread
    by a pipe: there Python's own handlers answer, as soon as the library in which the main thread is lets them.

    Args:
      answer: the line: what happens now, and what a second signal does.
      obey: the first signal raises KeyboardInterrupt in the main thread; else it is only noted.

    Yields:
      A function that tells whether a signal came.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)
        if not by_pipe:
            if len(received) > 1:
                _end(number)
            _say(answer)
        if obey:
            raise KeyboardInterrupt

    by_pipe = os.name == "posix"
    repeated: list[int] = []
    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        with (
            _watched(answer, repeated) if by_pipe else nullcontext(),
            _raised_again(received, repeated) if by_pipe and obey else nullcontext(),
        ):
            yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _raised_again(received: list[int], repeated: list[int]) -> Iterator[None]:
    """Sends the main thread its last signal again where the KeyboardInterrupt of the first one came to nothing.

    Args:
      received: signals so far.
      repeated: gets those that are sent from here, which nobody is to take for somebody's second one.
    """
    outer = sys.unraisablehook
    main = threading.main_thread()

    def repeat() -> None:
        repeated.append(received[-1])
        signal.pthread_kill(main.ident, received[-1])  # type: ignore[arg-type]

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if not (received and issubclass(unraisable.exc_type, KeyboardInterrupt)):
            outer(unraisable)
        elif threading.current_thread() is main:
            # Not from here, where it would be lost as well.
            timer = threading.Timer(_PAUSE, repeat)
            timer.daemon = True
            timer.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = outer


@contextmanager
def _watched(answer: str, repeated: list[int]) -> Iterator[None]:
    """A thread answers the signals that arrive meanwhile, but for those in `repeated`."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    watcher = threading.Thread(target=_watch, args=(reading, answer, repeated), daemon=True)
    outer = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(outer)
        os.close(writing)
        watcher.join()


def _watch(reading: int, answer: str, repeated: list[int]) -> None:
    """Answers the signals whose numbers arrive as bytes in a pipe, until it is closed, but for those in `repeated`."""
    answered = False
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while received := pipe.read(1):
            if received[0] not in SIGNALS:
                continue
            if received[0] in repeated:
                repeated.remove(received[0])
                continue
            if answered:
                _end(received[0])
            _say(answer)
            answered = True


def _end(number: int) -> None:
    """Ends the process and its children."""
    _say(AT_ONCE)
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(128 + number)


def _say(line: str) -> None:
    # Python's own streams may be locked by the thread that is being interrupted.
    os.write(2, f"\n{line}\n".encode())

"""Ctrl-C and SIGTERM as a request: the work in hand is finished and saved before the process
leaves.
"""

import signal
import threading


class Signals:
    """Within `with Signals() as signals`, the first SIGINT or SIGTERM is noted in
    `signals.received`; a second acts as ever.

    Does nothing outside the main thread, where Python allows no handlers, nor for a signal that the
    process ignores, as a job in the background of a shell does.
    """

    def __init__(self):
        self._previous = {}
        self.received: int | None = None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # None is a handler that Python did not install, and cannot install again.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception):
        self._restore()

    def _note(self, number, frame):
        self.received = number
        self._restore()

    def _restore(self):
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def raise_received(self) -> None:
        """KeyboardInterrupt for SIGINT, SystemExit(143) for SIGTERM, nothing if neither came."""
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        if self.received == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)

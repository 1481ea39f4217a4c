"""What XLA compiles."""

import contextlib
import re

import jax


@contextlib.contextmanager
def compilations():
    """The names of the programs that XLA compiles inside."""
    names = []

    def record(event, duration, **details):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(details.get("fun_name", "?"))

    jax.monitoring.register_event_duration_secs_listener(record)
    yield names
    jax.monitoring.unregister_event_duration_listener(record)


def trip_counts(text):
    """Of each loop of an optimised program how many turns it has; None where that is not known."""
    loops = [line for line in text.splitlines() if re.search(r" while\(", line)]
    known = [re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line) for line in loops]
    return [None if count is None else int(count.group(1)) for count in known]


def host_transfers(text):
    """The lines of an optimised program in which the host and the device talk."""
    words = "infeed|outfeed|send|recv|send-done|recv-done|custom-call"
    lines = [line for line in text.splitlines() if re.search(rf"(?<= )({words})\(", line)]
    return [line for line in lines if "custom-call" not in line or "callback" in line]

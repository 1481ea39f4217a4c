"""What XLA compiles."""

import contextlib

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

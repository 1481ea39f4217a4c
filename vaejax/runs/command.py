"""What every command has: mistakes are one line, and a result says what it depends on."""

import dataclasses
import io
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

import jax

from vaejax.base.processes import LostProcessError, OtherProcessError
from vaejax.base.settings import settings_of_numbers
from vaejax.base.version import __version__
from vaejax.runs.files import json_text, write_json
from vaejax.training.checkpoints import CheckpointError

CACHE = "~/.cache/vaejax/xla"  # of compiled programs
LEAST_SECONDS = 0.01  # of the compiler, for a program to be kept: to read one back takes less
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "numpyro", "orbax-checkpoint")

# Whose messages are written for the user; anything else is a fault of the program, and is shown
# whole. An ImportError names the extra that is missing.
MISTAKES = (
    ValueError,
    TypeError,
    OSError,
    ImportError,
    CheckpointError,
    FloatingPointError,
    OtherProcessError,
)
LOST = 3  # the exit status where another process is gone


def command_line(run: Callable[[], dict]) -> int:
    """Prints the result of `run()` as one line of JSON, and returns the exit status.

    The user's mistakes are one line on standard error, and exit status 2.
    """
    prepare_streams()
    keep_programs()
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs what it raises, in pages
    try:
        print(json_text(run()), flush=True)
    except BrokenPipeError:  # the reader has what it wanted, as in `vaejax names | head`
        sys.stdout = nowhere()  # Python writes what is left at its end
        return 141
    except LostProcessError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(LOST)  # JAX's own end would wait for the process that is gone
    except MISTAKES as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if "Unable to initialize backend" not in str(error):
            raise
        line = " ".join(str(error).split())
        print(f"error: {line} (it is named by $JAX_PLATFORMS)", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def prepare_streams() -> None:
    """Nothing that is printed can end a command: not in a terminal of few characters, and not where
    there is none.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it is closed
            setattr(sys, name, nowhere())
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def nowhere() -> TextIO:
    """Where what is printed is not seen."""
    return open(os.devnull, "w", encoding="utf-8")


def keep_programs() -> None:
    """Compiled programs are kept for the next command, where the user's own settings of JAX say
    nothing else, and where there is a place for them.
    """
    folder = Path(os.path.expanduser(CACHE))  # as it is where no home folder is known
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and folder.is_absolute():
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        if os.access(nearest, os.W_OK | os.X_OK):
            jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)


def record(out: Path, config: Any, /, **results: Any) -> None:
    """result.json in a folder: the results, and all that they depend on.

    `config` is a dataclass.
    """
    write_json(
        out / "result.json", {"config": dataclasses.asdict(config), **results, **environment()}
    )


def use_all_cores() -> None:
    """One device for each core of the CPU, of which `vaejax.fit_seeds` gives a seed each.

    Only before anything runs.
    """
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)


def environment() -> dict[str, Any]:
    """What a result depends on beside the configuration."""
    versions = {"vaejax": __version__} | {name: _version(name) for name in PACKAGES}
    return {
        "versions": versions | {"python": platform.python_version()},
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "platform": platform.platform(),
        "settings": settings_of_numbers(),
        "git": _revision(Path(__file__).parents[2]),
    }


def _version(package: str) -> str | None:
    """None for what runs from a checkout and is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _revision(checkout: Path) -> str | None:
    """Of the repository that the package lies in; None where it was installed from a wheel."""
    if not (checkout / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty"]
    try:
        described = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    except OSError:  # no git here, or none that may be run
        return None
    return described.stdout.strip() or None

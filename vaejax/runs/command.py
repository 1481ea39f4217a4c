"""What every command has: mistakes are one line, and a result says what it depends on."""

import dataclasses
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from vaejax.training.checkpoints import CheckpointError

CACHE = Path("~/.cache/vaejax/xla")  # of compiled programs
PACKAGES = ("vaejax", "jax", "jaxlib", "flax", "optax", "numpy", "numpyro", "orbax-checkpoint")

# Whose messages are written for the user; anything else is a fault of the program, and is shown
# whole. An ImportError names the extra that is missing.
MISTAKES = (
    ValueError,
    TypeError,
    FileNotFoundError,
    ImportError,
    CheckpointError,
    FloatingPointError,
)


def command_line(run: Callable[[], dict]) -> int:
    """Prints the result of `run()` as one line of JSON, and returns the exit status.

    The user's mistakes are one line on standard error, and exit status 2.
    """
    jax.config.update("jax_compilation_cache_dir", str(CACHE.expanduser()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    try:
        print(json.dumps(run()))
    except MISTAKES as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def record(out: Path, config: Any, /, **results: Any) -> None:
    """result.json in a folder: the results, and all that they depend on.

    `config` is a dataclass.
    """
    result = {"config": dataclasses.asdict(config), **results, **environment()}
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")


def use_all_cores() -> None:
    """One device for each core of the CPU, of which `vaejax.fit_seeds` gives a seed each.

    Only before anything runs.
    """
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)


def environment() -> dict[str, Any]:
    """What a result depends on beside the configuration."""
    versions = {name: version(name) for name in PACKAGES}
    return {
        "versions": versions | {"python": platform.python_version()},
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "platform": platform.platform(),
        "git": _revision(Path(__file__).parents[2]),
    }


def _revision(checkout: Path) -> str | None:
    """Of the repository that the package lies in; None where it was installed from a wheel."""
    if not (checkout / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty"]
    try:
        described = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    except FileNotFoundError:  # no git here
        return None
    return described.stdout.strip() or None

"""What every experiment has: a command line that fails in one line, and a record of what its result
depends on.
"""

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
import numpy as np

from vaejax.training.checkpoints import CheckpointError


def command_line(run: Callable[[], dict]) -> int:
    """Prints the result of `run()` as one line of JSON. The user's mistakes are one line on
    standard error, and exit status 2.
    """
    jax.config.update("jax_compilation_cache_dir", str(Path("~/.cache/vaejax/xla").expanduser()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    try:
        print(json.dumps(run()))
    except (ValueError, TypeError, FileNotFoundError, CheckpointError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def record(out: Path, config: Any, /, **found: Any) -> None:
    """result.json in the experiment's folder: what was found, and all that it depends on. `config`
    is a dataclass.
    """
    result = {"config": dataclasses.asdict(config), **found, **environment()}
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")


def some_rows(key: Any, number: int, size: int | None = None) -> np.ndarray:
    """Indices of `size` of so many examples, or of all, in random order: some sets are sorted by
    class.
    """
    return np.asarray(jax.random.permutation(key, number))[:size]


def use_all_cores() -> None:
    """One device for each core of the CPU, which `vaejax.fit_seeds` gives a seed each. Only before
    anything runs.
    """
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)


def environment() -> dict:
    """What a result depends on beside the configuration."""
    packages = ("vaejax", "jax", "jaxlib", "flax", "optax", "numpy", "numpyro", "orbax-checkpoint")
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    return {
        "versions": (
            {name: version(name) for name in packages} | {"python": platform.python_version()}
        ),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "platform": platform.platform(),
        "git": git.stdout.strip() or None,
    }

"""The settings of JAX that decide which numbers a program gives."""

from typing import Any

import jax

OF_NUMBERS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
)


def settings_of_numbers() -> dict[str, Any]:
    """{name: value} of the settings of precision and of random numbers, as they are now."""
    return {name: getattr(jax.config, name) for name in OF_NUMBERS}

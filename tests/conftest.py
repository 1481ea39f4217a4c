"""A strict run: ranks are never promoted, and the devices are eight, so that sharding is tested
everywhere.
"""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True, scope="module")
def let_go_of_programs():
    """The compiled programs of one module are not kept for the next: memory would only grow."""
    yield
    jax.clear_caches()

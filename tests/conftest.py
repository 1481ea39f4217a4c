"""A strict run: ranks are never promoted, and the devices are eight, so that sharding is tested
everywhere. With $VAEJAX_HASTE, as `make test` has it, programs are compiled in haste.
"""

import os
from importlib.metadata import version

FLAGS = ["--xla_force_host_platform_device_count=8"]
if os.environ.get("VAEJAX_HASTE"):
    FLAGS += ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
    FLAGS += ["--xla_cpu_parallel_codegen_split_count=1"]
    if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):  # which ends at unknown flags
        FLAGS += ["--xla_cpu_use_fusion_emitters=false"]
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])

import jax  # noqa: E402
import pytest  # noqa: E402

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

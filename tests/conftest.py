"""A strict run: ranks are never promoted, and the devices are eight, so that sharding is tested
everywhere. With $VAEJAX_HASTE, as `make test` has it, programs are compiled in haste, and once:
what one module, worker or process has compiled the others read from build/programs.
"""

import gc
import os
from importlib.metadata import version
from pathlib import Path

PROGRAMS = Path(__file__).resolve().parents[1] / "build" / "programs"
FLAGS = ["--xla_force_host_platform_device_count=8"]
if os.environ.get("VAEJAX_HASTE"):
    FLAGS += ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
    FLAGS += ["--xla_cpu_parallel_codegen_split_count=1"]
    if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):  # which ends at unknown flags
        FLAGS += ["--xla_cpu_use_fusion_emitters=false"]
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(PROGRAMS))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])

import jax  # noqa: E402
import pytest  # noqa: E402
from jax.extend.lowering import JaxIrContext  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
if os.environ.get("VAEJAX_HASTE"):
    # For each program, JAX 0.10 loads every dialect of MLIR, a GPU's too: a fifth of the time of a
    # program of one operation. Those that it uses it registers by name, but for this one.
    JaxIrContext.load_all_available_dialects = lambda context: context.dialects["func"]


def pytest_collection_finish():
    """What has been imported is never searched for garbage, and the rest less often: a tenth of
    the time of the tests.
    """
    if not gc.get_freeze_count():  # but once, where a test runs others
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)


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

"""What a run compiles before its first step is done: few programs, whatever the depth of the nets,
and none that the run before has left in the cache.
"""

import json
import os
import subprocess
import sys

FIRST_STEP = """
import json, sys
import jax

programs, read_back = [], []

def timed(event, seconds, **facts):
    if event == "/jax/core/compile/backend_compile_duration":
        programs.append(event)

def happened(event, **facts):
    if event == "/jax/compilation_cache/cache_hits":
        read_back.append(event)

jax.monitoring.register_event_duration_secs_listener(timed)
jax.monitoring.register_event_listener(happened)

import vaejax
from vaejax.runs.place import place_of
from vaejax.runs.prepared import prepared_training
from vaejax.runs.train import fitted, parsed
from vaejax.base.processes import ALONE

def after_the_first_call(run):
    print(json.dumps({"step": run.step, "programs": len(programs), "read back": len(read_back)}))
    raise vaejax.StopTraining

training = prepared_training(parsed(sys.argv[1:]))
place_of(training.config.out).mkdir()
fitted(training, place_of(training.config.out), [after_the_first_call], None, ALONE)
"""
MOST_PROGRAMS = 16  # keys, the starting parameters and state, the step; a leaf has none of its own


def first_step(folder, out, *flags):
    """What was compiled until the first step was done, in a process of its own."""
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [sys.executable, "-c", FIRST_STEP, "--out", str(folder / out), *flags]
    done = subprocess.run(
        command, env=os.environ | settings, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


def test_few_programs_are_compiled_before_the_first_step_and_none_a_second_time(tmp_path):
    flags = ["--hidden", "8", "7", "6", "5"]
    cold = first_step(tmp_path, "cold", *flags)
    assert cold["step"] == 1 and 0 < cold["programs"] <= MOST_PROGRAMS
    warm = first_step(tmp_path, "warm", *flags)
    assert warm["programs"] == warm["read back"] == cold["programs"]

"""What an accelerator gives: the speed of every part that trains or evaluates, and the error of its
products of matrices.

    python scripts/bench_device.py --minutes 7 --out device.jsonl     # all, one GPU, nothing else
    python scripts/bench_device.py --parts card steps --shrink 100    # a try on a CPU

The parts, in order of their worth; what the minutes do not hold is left out:

    card       rates of its products in float32, TF32 and bfloat16, of its memory, and what one
               step of an empty compiled loop costs with a traced and with a static count
    steps      W1 to W4: `fit`, a hand-written scan and PyTorch, µs a step; the share of the card
    evaluate   images/s of log p(x) by 5,000 importance samples
    seeds      `fit_seeds` of 1 to 256 seeds at once, dense and with both forms of convolutions
    truth      bounds and gradients with products in TF32 and in float32 (scripts/device_truth.py)
    half       `HalfPrecision`: µs a step, and how far it moves a bound
    variance   W5: the ways to a gradient's variance (scripts/bench_variance.py)
    ais        images/s of annealed importance sampling
    tests      the tests of truth under both precisions

Each row is one line of JSON, printed as soon as it is measured, and kept in --out; a part that
fails says so in its row, and the next one begins. At the end a table for each part, and all rows as
one JSON.
"""

import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch and the tests need some

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from bench_variance import relative_error, ways_of
from device_truth import tests, truth
from timing import seconds, take_turns
from workloads import (
    WORKLOADS,
    Workload,
    as_it_is,
    binary_images,
    objective_of,
    systems_of,
    torch_version,
    vaejax_run,
)

import vaejax
from vaejax import ais
from vaejax.networks import gemm
from vaejax.runs.files import json_text
from vaejax.runs.table import markdown

Row = dict[str, Any]
NUM_STEPS = {"W1": 8_000, "W2": 8_000, "W3": 4_000, "W4": 3_000}  # half a second to a second


def card(shrink: int) -> Iterator[Row]:
    device = jax.devices()[0]
    yield {"case": "card", "device": device.device_kind, "jax": jax.__version__}
    yield {"case": "card", **rates(shrink)}
    yield {"case": "loop", **microseconds_of_an_empty_step(20_000 // shrink)}


@lru_cache
def rates(shrink: int) -> dict[str, float]:
    """Measured ceilings: TFLOP/s of a product of matrices by precision, GB/s of memory."""
    size = max(256, 8192 // shrink)
    x, y = jax.random.normal(jax.random.key(0), (2, size, size))

    def tera(x, y, precision):
        product = jax.jit(partial(jnp.dot, precision=precision))
        return 2 * size**3 / 1e12 / fastest(lambda: product(x, y), 5)

    half = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
    long = jnp.zeros(2**28 // shrink)
    add = jax.jit(lambda x: x + 1)
    return {
        "float32_tflops": tera(x, y, "highest"),
        "default_tflops": tera(x, y, "default"),
        "bfloat16_tflops": tera(*half, "default"),
        "memory_gb_per_second": 2 * long.nbytes / 1e9 / fastest(lambda: add(long), 5),
    }


def fastest(function: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest of some calls, after one that is not counted."""
    return min(take_turns({"": lambda: jax.block_until_ready(function())}, repeats)[""])


def microseconds_of_an_empty_step(num_steps: int) -> dict[str, float]:
    """Of a compiled loop whose step is one small product: its count is traced, static, or traced
    over blocks of a static 32.
    """
    x = jnp.eye(64)

    def some(count, x):
        return jax.lax.fori_loop(0, count, lambda i, x: x @ x, x)

    def blocks(count, x):
        return jax.lax.fori_loop(0, count // 32, lambda i, x: some(32, x), x)

    loops = {
        "traced_us": partial(jax.jit(some), num_steps),
        "static_us": partial(jax.jit(some, static_argnums=0), num_steps),
        "blocks_us": partial(jax.jit(blocks), num_steps),
    }
    return {name: 1e6 * fastest(partial(loop, x), 3) / num_steps for name, loop in loops.items()}


def steps(shrink: int) -> Iterator[Row]:
    """µs of a step of each system. That of `fit` is the difference of a long and a short run, whose
    fixed part, the checks and the first small calls, is its own number.
    """
    data = binary_images()
    for name, workload in WORKLOADS.items():
        count = max(10, NUM_STEPS[name] // shrink)
        long, short = (
            dataclasses.replace(workload, num_steps=steps) for steps in (count, count // 8)
        )
        runs = systems_of(long, data) | {"short": vaejax_run(short, data)}
        if torch_version():
            runs["PyTorch"] = systems_of(short, data)["PyTorch"]
        compiling = {name: seconds(run) for name, run in runs.items()}
        turns = [{name: seconds(run) for name, run in runs.items()} for _ in range(2)]
        times = {name: min(turn[name] for turn in turns) for name in runs}
        fit = (times["fit"] - times["short"]) / (count - count // 8)
        found = {"fit_us": 1e6 * fit, "fixed_seconds": times["short"] - fit * (count // 8)}
        if "hand-written" in times:
            found["scan_us"] = 1e6 * times["hand-written"] / count
            found["fit / scan"] = found["scan_us"] / found["fit_us"]
            found["scan_compile_seconds"] = compiling["hand-written"] - times["hand-written"]
        if "PyTorch" in times:
            found["torch_us"] = 1e6 * times["PyTorch"] / (count // 8)
            found["fit / torch"] = found["torch_us"] / found["fit_us"]
        found["compile_seconds"] = compiling["fit"] - times["fit"]
        yield {"case": name, **found, **shares(workload, fit, shrink)}


def shares(workload: Workload, step_seconds: float, shrink: int) -> dict[str, float]:
    """FLOP of the bound's gradient, by XLA's count, and the share of the card's rates that they
    are.
    """
    objective = objective_of(workload)
    xs = binary_images(workload.batch_size).astype(np.float32)
    params = jax.eval_shape(objective.model.init, jax.random.key(0), xs[0])

    def value(params, key):
        return objective(params, xs, key, 0).objective

    lowered = jax.jit(jax.grad(value)).lower(params, jax.random.key(0))
    flop = lowered.cost_analysis()["flops"]
    tera = flop / 1e12 / step_seconds
    of_float32, of_default = (tera / rates(shrink)[f"{p}_tflops"] for p in ("float32", "default"))
    return {"gflop": flop / 1e9, "share_float32": of_float32, "share_default": of_default}


def evaluate(shrink: int) -> Iterator[Row]:
    objective = objective_of(WORKLOADS["W2"])
    xs = binary_images(max(20, 1_000 // shrink)).astype(np.float32)
    params = jax.jit(objective.model.init)(jax.random.key(0), xs[0])
    for batch_size, chunk in [(20, 500), (20, 5_000), (100, 5_000)]:
        settings = {"num_samples": max(25, 5_000 // shrink), "batch_size": batch_size}
        run = partial(
            vaejax.evaluate, objective.model, params, xs, jax.random.key(1),
            chunk=chunk, progress=False, **settings,
        )  # fmt: skip
        first, warm = seconds(run), seconds(run)
        case = f"{batch_size} images, {chunk:,} samples at once"
        yield {"case": case, "images_per_second": len(xs) / warm, "compile_seconds": first - warm}


def seeds(shrink: int) -> Iterator[Row]:
    forms = {"dense": ("W2", None), "conv, lax": ("W4", "lax"), "conv, matrices": ("W4", "gemm")}
    counts = (1, 64, 256, 8) if shrink == 1 else (1, 2)
    alone: dict[str, float] = {}
    for count, (case, (name, form)) in itertools.product(counts, forms.items()):
        if count > 64 and form:
            continue
        num_steps = max(16, 2_000 // count // shrink)
        with mock.patch.multiple("vaejax.networks.layers", **convolutions(form)):
            step = seconds_of_a_step_of_seeds(WORKLOADS[name], count, num_steps)
        jax.clear_caches()
        alone.setdefault(case, step)
        batch_size = WORKLOADS[name].batch_size
        yield {
            "case": case, "seeds": count, "us": 1e6 * step,
            "times_one_seed": count * alone[case] / step,
            "examples_per_second": count * batch_size / step,
        }  # fmt: skip


def convolutions(form: str | None) -> dict[str, Any]:
    """What the nets' layers call, in one form on every platform."""
    if form is None:
        return {}
    names = ("conv", "conv_transpose")
    return {name: getattr(gemm, f"{name}_{form}") for name in names}


def seconds_of_a_step_of_seeds(workload: Workload, count: int, num_steps: int) -> float:
    objective, data = objective_of(workload), jnp.asarray(binary_images())
    keys = jax.random.split(jax.random.key(0), count)
    params = jax.jit(jax.vmap(objective.model.init, (0, None)))(keys, data[0])

    def run(num_steps: int) -> None:
        vaejax.fit_seeds(
            objective, params, optax.adam(1e-3), data, keys, num_steps=num_steps,
            batch_size=workload.batch_size, strategy="vmap", progress=False,
        )  # fmt: skip

    run(num_steps)
    short, long = seconds(partial(run, num_steps)), seconds(partial(run, 4 * num_steps))
    return (long - short) / (3 * num_steps)


def half(shrink: int) -> Iterator[Row]:
    data = binary_images()
    for name in ("W1", "W2", "W3"):
        count = max(16, NUM_STEPS[name] // 2 // shrink)
        found = {}
        for precision, in_nets in {"float32": as_it_is, "bfloat16": vaejax.HalfPrecision}.items():
            runs = {
                steps: vaejax_run(
                    dataclasses.replace(WORKLOADS[name], num_steps=steps), data, in_nets
                )
                for steps in (count // 8, count)
            }
            times = {steps: fastest(run, 2) for steps, run in runs.items()}
            found[f"{precision}_us"] = (
                1e6 * (times[count] - times[count // 8]) / (count - count // 8)
            )
        yield {"case": name, **found}


def variance(shrink: int) -> Iterator[Row]:
    by_examples = max(4, 68 // shrink)
    ways, long_run = ways_of(max(20, 1_000 // shrink), by_examples)
    times = {way: min(spent) for way, spent in take_turns(ways, 2).items()}
    exact = long_run()
    for way, run in ways.items():
        ratio = times["one scan"] / times[way]
        error = relative_error(run(), exact)
        yield {"case": way, "seconds": times[way], "of_one_scan": ratio, "error": error}


def annealed(shrink: int) -> Iterator[Row]:
    objective = objective_of(WORKLOADS["W2"])
    xs = binary_images(max(4, 400 // shrink)).astype(np.float32)
    params = jax.jit(objective.model.init)(jax.random.key(0), xs[0])
    path = vaejax.AIS(objective.model, ais.Sigmoid(max(10, 500 // shrink)))
    run = partial(vaejax.map_dataset, path, params, xs, jax.random.key(1), batch_size=100)
    first, warm = seconds(run), seconds(run)
    case = f"{len(path.temperatures.betas()) - 1} temperatures, {path.num_chains} chains"
    yield {"case": case, "images_per_second": len(xs) / warm, "compile_seconds": first - warm}


PARTS: dict[str, Callable[[int], Iterator[Row]]] = {
    "card": card,
    "steps": steps,
    "evaluate": evaluate,
    "seeds": seeds,
    "truth": truth,
    "half": half,
    "variance": variance,
    "ais": annealed,
    "tests": tests,
}


def main(
    parts: tuple[str, ...] = tuple(PARTS),
    minutes: float = 8.0,
    shrink: int = 1,
    out: Path | None = None,
) -> None:
    """Measures the parts, prints a table of each and one JSON.

    Args:
      parts: Which parts, in this order.
      minutes: No row is begun after so many.
      shrink: So many times fewer steps and examples, for a try.
      out: A file that gets each row as one line of JSON.
    """
    began, rows = time.monotonic(), []
    for part in parts:
        measured = PARTS[part](shrink)
        while time.monotonic() - began < 60 * minutes:
            try:
                row = next(measured, None)
            except Exception as error:
                row = {"case": "failed", "error": f"{type(error).__name__}: {error}"[:300]}
            if row is None:
                break
            row = {"part": part, **row, "at_seconds": round(time.monotonic() - began, 1)}
            rows.append(row)
            print(json_text(row), flush=True)
            if out is not None:
                with out.open("a") as file:
                    print(json_text(row), file=file)
    for part in dict.fromkeys(row["part"] for row in rows):
        print(f"\n{part}\n\n{table([row for row in rows if row['part'] == part])}")
    print(json.dumps(rows))


def table(rows: Sequence[Row]) -> str:
    """In Markdown; a number has three digits."""
    names = list(dict.fromkeys(name for row in rows for name in row if name != "part"))

    def cell(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return markdown(names, ([cell(row.get(name, "-")) for name in names] for row in rows))


if __name__ == "__main__":
    tyro.cli(main)

"""How fast the parts that train and evaluate are on this device: the rows of
scripts/bench_device.py.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from bench_variance import relative_error, ways_of
from peers import pytorch_run, systems_of
from timing import seconds, take_turns
from workloads import WORKLOADS, Workload, as_it_is, binary_images, objective_of, vaejax_run

import vaejax
from vaejax import ais
from vaejax.base import loops
from vaejax.networks import gemm
from vaejax.training.seeds import SeedWay

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
    """µs of a step of each system; of `fit` also in a loop of one step to a block."""
    data = binary_images()
    for name, workload in WORKLOADS.items():
        count = max(16, NUM_STEPS[name] // shrink)
        fit = fit_times(workload, data, count)
        row = {"fit_us": 1e6 * fit.step, "fixed_seconds": fit.fixed, "compile_seconds": fit.compile}
        systems = systems_of(dataclasses.replace(workload, num_steps=count), data)
        if "hand-written" in systems:
            scan = systems["hand-written"]
            first, *later = (seconds(scan) for _ in range(3))
            row["scan_us"] = 1e6 * min(later) / count
            row["fit / scan"] = row["scan_us"] / row["fit_us"]
            row["scan_compile_seconds"] = first - min(later)
        if "PyTorch" in systems:
            fewer = max(2, count // 16)
            torch = pytorch_run(dataclasses.replace(workload, num_steps=fewer), data)
            row["torch_us"] = 1e6 * fastest(torch, 2) / fewer
            row["fit / torch"] = row["torch_us"] / row["fit_us"]
        yield {"case": name, **row, **shares(workload, fit.step, shrink)}
    with mock.patch.object(loops, "ON_ACCELERATORS", 1):
        jax.clear_caches()
        fit = fit_times(WORKLOADS["W1"], data, max(16, NUM_STEPS["W1"] // shrink))
    jax.clear_caches()
    yield {"case": "W1, one step to a block", "fit_us": 1e6 * fit.step}


class FitTimes(NamedTuple):
    """Seconds: of a step; of the checks and the first, small calls; of the compiler."""

    step: float
    fixed: float
    compile: float


def fit_times(workload: Workload, data: np.ndarray, count: int, **settings: Any) -> FitTimes:
    """A step's is the difference of a long and a short run, over the difference of their steps."""
    lengths = max(2, count // 8), count
    runs = [
        vaejax_run(dataclasses.replace(workload, num_steps=steps), data, **settings)
        for steps in lengths
    ]
    first = seconds(runs[1])
    turns = [[seconds(run) for run in runs] for _ in range(2)]
    short, long = np.min(turns, axis=0)
    step = (long - short) / (lengths[1] - lengths[0])
    return FitTimes(step, short - step * lengths[0], first - long)


def shares(workload: Workload, step_seconds: float, shrink: int) -> dict[str, float]:
    """FLOP of the bound's gradient, by XLA's count, and the share of the card's rates that they
    are.
    """
    objective = objective_of(workload)
    xs = binary_images(workload.batch_size).astype(np.float32)
    params = jax.eval_shape(objective.model.init, jax.random.key(0), xs[0])

    def value(params, key):
        return objective(params, xs, key, 0).objective

    with jax.default_device(jax.local_devices(backend="cpu")[0]):  # a GPU's compiler does not say
        lowered = jax.jit(jax.grad(value)).lower(params, jax.random.key(0))
    flop = (lowered.cost_analysis() or {})["flops"]
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
    forms: dict[str, tuple[str, str | None, SeedWay]] = {
        "dense": ("W2", None, "vmap"),
        "conv, lax": ("W4", "lax", "vmap"),
        "conv, matrices": ("W4", "gemm", "vmap"),
        "conv, one after another": ("W4", "lax", "map"),
    }
    counts = (1, 64, 256, 8) if shrink == 1 else (1, 2)
    alone: dict[str, float] = {}
    for count, (case, (name, form, way)) in itertools.product(counts, forms.items()):
        if count > 64 and form:
            continue
        num_steps = max(16, 2_000 // count // shrink)
        with convolutions(form):
            step = seconds_of_a_step_of_seeds(WORKLOADS[name], count, num_steps, way)
        jax.clear_caches()
        alone.setdefault(case, step)
        batch_size = WORKLOADS[name].batch_size
        yield {
            "case": case, "seeds": count, "us": 1e6 * step,
            "times_one_seed": count * alone[case] / step,
            "examples_per_second": count * batch_size / step,
        }  # fmt: skip


def convolutions(form: str | None) -> AbstractContextManager:
    """Within it the layers' convolutions have one form on every platform; None changes nothing."""
    if form is None:
        return nullcontext()
    forms = {name: getattr(gemm, f"{name}_{form}") for name in ("conv", "conv_transpose")}
    return mock.patch.multiple("vaejax.networks.layers", **forms)


def seconds_of_a_step_of_seeds(
    workload: Workload, count: int, num_steps: int, way: SeedWay
) -> float:
    objective, data = objective_of(workload), jnp.asarray(binary_images())
    keys = jax.random.split(jax.random.key(0), count)
    params = jax.jit(jax.vmap(objective.model.init, (0, None)))(keys, data[0])

    def run(num_steps: int) -> None:
        vaejax.fit_seeds(
            objective, params, optax.adam(1e-3), data, keys, num_steps=num_steps,
            batch_size=workload.batch_size, strategy=way, progress=False,
        )  # fmt: skip

    run(num_steps)
    short, long = seconds(partial(run, num_steps)), seconds(partial(run, 4 * num_steps))
    return (long - short) / (3 * num_steps)


def half(shrink: int) -> Iterator[Row]:
    data = binary_images()
    nets = {"float32": as_it_is, "bfloat16": vaejax.HalfPrecision}
    for name in ("W1", "W2", "W3"):
        count = max(16, NUM_STEPS[name] // 2 // shrink)
        step = {
            f"{precision}_us": 1e6 * fit_times(WORKLOADS[name], data, count, in_nets=in_nets).step
            for precision, in_nets in nets.items()
        }
        yield {"case": name, **step}


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

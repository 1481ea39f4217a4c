"""Training speed: `vaejax.fit` against a hand-written JAX loop and, where torch is installed, a
plain PyTorch loop.

    python scripts/bench_train.py                    # all four workloads, about 10 minutes on two
                                                     cores
    python scripts/bench_train.py --workloads W2 W4 --repeats 9

The systems take turns in one process, each timed over a whole run of the same number of steps from
a warm start; what is reported is the median of the ratios of neighbouring turns, for absolute
speeds drift with the machine. Nothing else may run.

The hand-written loop is what an expert would write for one model: data passed in, shuffled on the
host, gathered in the body of one scan, buffers donated, one draw of noise for a batch. It shares no
code with vaejax.
"""

import dataclasses
import itertools
import math
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from timing import take_turns

import vaejax
from vaejax.runs.files import json_text

DATA_SIZE = 60_000


@dataclasses.dataclass(frozen=True)
class Workload:
    hidden: tuple[int, ...]
    latent_dim: int
    batch_size: int
    num_samples: int
    activation: str
    num_steps: int
    conv: bool = False


WORKLOADS = {
    "W1": Workload((500,), 20, 128, 1, "relu", num_steps=1200),
    "W2": Workload((200, 200), 50, 100, 1, "tanh", num_steps=1000),
    "W3": Workload((200, 200), 50, 20, 50, "tanh", num_steps=200),
    "W4": Workload((256,), 32, 128, 1, "relu", num_steps=160, conv=True),
}


def vaejax_run(workload: Workload, data: np.ndarray) -> Callable[[], None]:
    """`vaejax.fit`, whole: the checks of its arguments and the copies that it makes are in the
    time.
    """
    activation = {"relu": nn.relu, "tanh": nn.tanh}[workload.activation]
    if workload.conv:
        decoder = vaejax.ConvDecoder((28, 28))
        encoder = vaejax.ConvEncoder(workload.latent_dim, heads=2)
    else:
        decoder = vaejax.MLP((28, 28), workload.hidden, activation=activation)
        encoder = vaejax.MLP(workload.latent_dim, workload.hidden, heads=2, activation=activation)
    model = vaejax.VAE(
        vaejax.StandardNormal(workload.latent_dim),
        vaejax.Bernoulli(decoder),
        vaejax.DiagNormal(encoder),
    )
    bound = vaejax.elbo_bound if workload.num_samples == 1 else vaejax.iwae_bound
    params = model.init(jax.random.key(0), data[0])
    stored = jnp.asarray(data)

    def run():
        objective = vaejax.minibatch(vaejax.Pathwise(workload.num_samples, bound), model)
        settings = {
            "num_steps": workload.num_steps,
            "batch_size": workload.batch_size,
            "progress": False,
        }
        vaejax.fit(objective, params, optax.adam(1e-3), stored, jax.random.key(1), **settings)

    return run


def hand_written_run(workload: Workload, data: np.ndarray) -> Callable[[], None]:
    activation = {"relu": nn.relu, "tanh": jnp.tanh}[workload.activation]
    dim, batch_size, num_samples = workload.latent_dim, workload.batch_size, workload.num_samples
    keys = iter(jax.random.split(jax.random.key(0), 20))
    vectors = jnp.asarray(data.reshape(DATA_SIZE, 784), jnp.float32)

    def layers(*sizes):
        return [
            (jax.random.normal(next(keys), (m, n)) / math.sqrt(m), jnp.zeros(n))
            for m, n in itertools.pairwise(sizes)
        ]

    def mlp(layers, h):
        for weights, bias in layers[:-1]:
            h = activation(h @ weights + bias)
        weights, bias = layers[-1]
        return h @ weights + bias

    def loss(params, x, key):
        encoder, decoder = params
        head = mlp(encoder, x)
        loc, log_scale = head[:, :dim], head[:, dim:]
        shape = (batch_size, dim)
        if num_samples > 1:
            loc, log_scale, x, shape = (
                loc[:, None],
                log_scale[:, None],
                x[:, None],
                (batch_size, num_samples, dim),
            )
        noise = jax.random.normal(key, shape)
        z = loc + jnp.exp(log_scale) * noise
        logits = mlp(decoder, z)
        log_likelihood = jnp.sum(
            x * logits - jnp.maximum(logits, 0) - jnp.log1p(jnp.exp(-jnp.abs(logits))), -1
        )
        log_w = log_likelihood + jnp.sum(0.5 * noise**2 + log_scale - 0.5 * z**2, -1)
        return -jnp.mean(
            log_w if num_samples == 1 else jax.nn.logsumexp(log_w, -1) - math.log(num_samples)
        )

    optimizer = optax.adam(1e-3)

    @partial(jax.jit, donate_argnums=(0, 1))
    def scan(params, opt_state, data, rows, keys):
        def step(carry, inputs):
            params, opt_state = carry
            rows, key = inputs
            value, gradient = jax.value_and_grad(loss)(params, data[rows], key)
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), value

        return jax.lax.scan(step, (params, opt_state), (rows, keys))

    hidden = workload.hidden
    start = layers(784, *hidden, 2 * dim), layers(dim, *hidden[::-1], 784)

    def run():
        params = jax.tree.map(jnp.array, start)
        shuffled = np.random.default_rng(0).permutation(DATA_SIZE)
        rows = np.resize(shuffled, (workload.num_steps, batch_size)).astype(np.int32)
        _, losses = scan(
            params,
            optimizer.init(params),
            vectors,
            rows,
            jax.random.split(jax.random.key(1), workload.num_steps),
        )
        np.asarray(losses)

    return run


def pytorch_run(workload: Workload, data: np.ndarray) -> Callable[[], None]:
    """The loop of a PyTorch tutorial: modules, Adam, one Python step a batch."""
    import torch
    from torch import nn as tnn

    dim, num_samples = workload.latent_dim, workload.num_samples
    activation = {"relu": tnn.ReLU, "tanh": tnn.Tanh}[workload.activation]

    def mlp(*sizes):
        parts = [
            part
            for m, n in itertools.pairwise(sizes[:-1])
            for part in (tnn.Linear(m, n), activation())
        ]
        return tnn.Sequential(*parts, tnn.Linear(sizes[-2], sizes[-1]))

    if workload.conv:
        images = torch.tensor(data, dtype=torch.float32)[:, None]
        encoder = tnn.Sequential(
            *(
                tnn.Conv2d(1, 32, 3, 2, 1),
                tnn.ReLU(),
                tnn.Conv2d(32, 64, 3, 2, 1),
                tnn.ReLU(),
                tnn.Flatten(),
            ),
            *(tnn.Linear(49 * 64, 256), tnn.ReLU(), tnn.Linear(256, 2 * dim)),
        )
        up = {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}
        decoder = tnn.Sequential(
            *(
                tnn.Linear(dim, 256),
                tnn.ReLU(),
                tnn.Linear(256, 49 * 64),
                tnn.ReLU(),
                tnn.Unflatten(1, (64, 7, 7)),
            ),
            *(tnn.ConvTranspose2d(64, 32, **up), tnn.ReLU(), tnn.ConvTranspose2d(32, 1, **up)),
        )
    else:
        images = torch.tensor(data.reshape(DATA_SIZE, 784), dtype=torch.float32)
        encoder, decoder = (
            mlp(784, *workload.hidden, 2 * dim),
            mlp(dim, *workload.hidden[::-1], 784),
        )
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3)

    def run():
        shuffled, loss = torch.randperm(DATA_SIZE), torch.zeros(())
        for i in range(workload.num_steps):
            start = i * workload.batch_size % (DATA_SIZE - workload.batch_size)
            x = images[shuffled[start : start + workload.batch_size]]
            loc, log_scale = encoder(x).chunk(2, -1)
            if num_samples > 1:
                loc, log_scale, x = loc[:, None], log_scale[:, None], x[:, None]
            noise = (
                torch.randn(len(x), num_samples, dim) if num_samples > 1 else torch.randn_like(loc)
            )
            z = loc + log_scale.exp() * noise
            logits = decoder(z)
            pixels = tnn.functional.binary_cross_entropy_with_logits(
                logits, x.expand_as(logits), reduction="none"
            )
            log_likelihood = -pixels.flatten(1 if num_samples == 1 else 2).sum(-1)
            log_w = log_likelihood + (0.5 * noise**2 + log_scale - 0.5 * z**2).sum(-1)
            loss = -(
                log_w if num_samples == 1 else log_w.logsumexp(-1) - math.log(num_samples)
            ).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()

    return run


def main(workloads: tuple[str, ...] = tuple(WORKLOADS), repeats: int = 7) -> None:
    """Times the workloads and prints a table.

    Args:
      workloads: Which of W1 to W4.
      repeats: How many turns each system takes.
    """
    jax.config.update("jax_compilation_cache_dir", str(Path("~/.cache/vaejax/xla").expanduser()))
    try:
        import torch

        torch_version = torch.__version__
    except ImportError:
        torch_version = None
    data = (np.random.default_rng(0).random((DATA_SIZE, 28, 28)) < 0.13).astype(np.uint8)
    print(
        f"{platform.processor() or platform.machine()}, {jax.devices()}, jax {jax.__version__},"
        f" torch {torch_version}"
    )
    print("| workload | fit, examples/s | fit / hand-written | fit / PyTorch |\n|---|---|---|---|")
    results = {}
    for name in workloads:
        workload = WORKLOADS[name]
        systems = {"fit": vaejax_run(workload, data)}
        if not workload.conv:
            systems["hand-written"] = hand_written_run(workload, data)
        if torch_version:
            systems["PyTorch"] = pytorch_run(workload, data)
        times = take_turns(systems, repeats)
        ratios = {
            system: float(np.median(np.divide(times[system], times["fit"]))) for system in systems
        }
        speed = workload.num_steps * workload.batch_size / float(np.median(times["fit"]))
        results[name] = {
            "examples_per_second": speed,
            **{f"fit / {system}": ratio for system, ratio in ratios.items() if system != "fit"},
        }
        cells = [
            f"{ratios[system]:.2f}" if system in ratios else "-"
            for system in ("hand-written", "PyTorch")
        ]
        print(f"| {name} | {speed:,.0f} | {' | '.join(cells)} |", flush=True)
    print(json_text(results))


if __name__ == "__main__":
    tyro.cli(main)

"""The workloads of the benchmarks W1 to W4, `vaejax.fit` of them, and a hand-written JAX loop.

The hand-written loop is what an expert would write for one model: data passed in, shuffled on the
host, gathered in the body of one scan, buffers donated, one draw of noise for a batch. It shares no
code with vaejax.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaejax

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


def binary_images(size: int = DATA_SIZE) -> np.ndarray:
    """[size, 28, 28] of 0 and 1, as many of them 1 as in MNIST."""
    return (np.random.default_rng(0).random((size, 28, 28)) < 0.13).astype(np.uint8)


def as_it_is(net: Any) -> Any:
    return net


def objective_of(workload: Workload, in_nets: Callable[[Any], Any] = as_it_is) -> vaejax.Objective:
    """The minibatch objective of a workload, whose nets are those that `in_nets` makes of its
    own.
    """
    activation = {"relu": nn.relu, "tanh": nn.tanh}[workload.activation]
    if workload.conv:
        decoder = vaejax.ConvDecoder((28, 28))
        encoder = vaejax.ConvEncoder(workload.latent_dim, heads=2)
    else:
        decoder = vaejax.MLP((28, 28), workload.hidden, activation=activation)
        encoder = vaejax.MLP(workload.latent_dim, workload.hidden, heads=2, activation=activation)
    prior = vaejax.StandardNormal(workload.latent_dim)
    likelihood, posterior = vaejax.Bernoulli(in_nets(decoder)), vaejax.DiagNormal(in_nets(encoder))
    model = vaejax.VAE(prior, likelihood, posterior)
    bound = vaejax.elbo_bound if workload.num_samples == 1 else vaejax.iwae_bound
    return vaejax.minibatch(vaejax.Pathwise(workload.num_samples, bound), model)


def vaejax_run(
    workload: Workload, data: np.ndarray, in_nets: Callable[[Any], Any] = as_it_is
) -> Callable[[], None]:
    """`vaejax.fit`, whole: the checks of its arguments and the copies that it makes are in the
    time. The data lie on the device, but a `np.memmap` stays on disk.
    """
    params = jax.jit(objective_of(workload).model.init)(jax.random.key(0), data[0])
    stored = data if isinstance(data, np.memmap) else jnp.asarray(data)

    def run():
        settings = {
            "num_steps": workload.num_steps,
            "batch_size": workload.batch_size,
            "progress": False,
        }
        objective = objective_of(workload, in_nets)
        vaejax.fit(objective, params, optax.adam(1e-3), stored, jax.random.key(1), **settings)

    return run


def hand_written_run(workload: Workload, data: np.ndarray) -> Callable[[], None]:
    dim, batch_size, num_samples = workload.latent_dim, workload.batch_size, workload.num_samples
    encode, decode, start = (convolutions if workload.conv else dense)(workload)
    stored = jnp.asarray(data.reshape(len(data), 784), jnp.float32)

    def loss(params, x, key):
        encoder, decoder = params
        head = encode(encoder, x)
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
        logits = decode(decoder, z)
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

    def run():
        params = jax.tree.map(jnp.array, start)
        shuffled = np.random.default_rng(0).permutation(len(data))
        rows = np.resize(shuffled, (workload.num_steps, batch_size)).astype(np.int32)
        _, losses = scan(
            params,
            optimizer.init(params),
            stored,
            rows,
            jax.random.split(jax.random.key(1), workload.num_steps),
        )
        np.asarray(losses)

    return run


def dense(workload: Workload):
    """The two nets of a hand-written loop, x -> heads and z -> logits, and their parameters."""
    activation = {"relu": nn.relu, "tanh": jnp.tanh}[workload.activation]
    draw, dim, hidden = drawn(), workload.latent_dim, workload.hidden

    def layers(*sizes):
        return [draw(m, n) for m, n in itertools.pairwise(sizes)]

    def mlp(layers, h):
        for weights, bias in layers[:-1]:
            h = activation(h @ weights + bias)
        weights, bias = layers[-1]
        return h @ weights + bias

    return mlp, mlp, (layers(784, *hidden, 2 * dim), layers(dim, *hidden[::-1], 784))


def convolutions(workload: Workload):
    """As `dense`, with convolutions of stride 2."""
    draw, dim, dimensions = drawn(), workload.latent_dim, ("NHWC", "HWIO", "NHWC")
    settings = {"padding": "SAME", "dimension_numbers": dimensions}

    def encode(layers, x):
        h = x.reshape(-1, 28, 28, 1)
        for kernel, bias in layers[:2]:
            h = nn.relu(jax.lax.conv_general_dilated(h, kernel, (2, 2), **settings) + bias)
        (weights, bias), (last_weights, last_bias) = layers[2:]
        return nn.relu(h.reshape(len(h), -1) @ weights + bias) @ last_weights + last_bias

    def decode(layers, z):
        h = z
        for weights, bias in layers[:2]:
            h = nn.relu(h @ weights + bias)
        h = h.reshape(-1, 7, 7, 64)
        (kernel, bias), (last_kernel, last_bias) = layers[2:]
        h = nn.relu(jax.lax.conv_transpose(h, kernel, (2, 2), **settings) + bias)
        h = jax.lax.conv_transpose(h, last_kernel, (2, 2), **settings) + last_bias
        return h.reshape(len(h), 784)

    encoder = [draw(3, 3, 1, 32), draw(3, 3, 32, 64), draw(3136, 256), draw(256, 2 * dim)]
    decoder = [draw(dim, 256), draw(256, 3136), draw(3, 3, 64, 32), draw(3, 3, 32, 1)]
    return encode, decode, (encoder, decoder)


def drawn():
    """A function of a kernel's shape that gives its first weights and biases."""
    keys = iter(jax.random.split(jax.random.key(0), 20))

    def draw(*shape):
        scale = 1 / math.sqrt(math.prod(shape[:-1]))
        return scale * jax.random.normal(next(keys), shape), jnp.zeros(shape[-1])

    return draw

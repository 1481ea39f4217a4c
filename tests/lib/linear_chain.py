"""A linear-Gaussian chain z2 -> z1 -> x with a q of two lines, and its ELBO in closed form."""

import jax
import jax.numpy as jnp
import numpy as np

import vaejax
from tests.lib.oracles import Line
from vaejax import DirectedGraph, Node

LINE = vaejax.Gaussian(Line(), scale="learned")
CHAIN = DirectedGraph(
    (
        Node("z2", vaejax.LearnedNormal(1)),
        Node("z1", LINE, "z2"),
        Node("x", vaejax.Gaussian(Line(), scale=0.8), "z1"),
    )
)
X_SCALE = 0.8


@vaejax.component
class LineAndScale:
    """x -> (w x + b, s): the two heads of a normal."""

    def init(self, key, example):
        return {"w": jnp.ones(()), "b": jnp.zeros(()), "s": jnp.zeros(1)}

    def apply(self, params, x):
        return params["w"] * x + params["b"], params["s"]


def line(w, b, **rest):
    return {"net": {"w": jnp.asarray(w), "b": jnp.asarray(b)}, **jax.tree.map(jnp.asarray, rest)}


def heads(w, b, s):
    return {"w": jnp.asarray(w), "b": jnp.asarray(b), "s": jnp.asarray([s])}


def theta():
    return {
        "z2": {"loc": jnp.asarray([0.2]), "log_scale": jnp.asarray([0.1])},
        "z1": line(0.5, 0.1, log_scale=-0.1),
        "x": line(0.6, 0.2),
    }


def model_of(first, second) -> vaejax.GraphModel:
    """q(z2 | x) and q(z1 | x), each shown what it is shown beside x."""
    nodes = (Node("z2", first, "x"), Node("z1", second, "x"))
    return vaejax.GraphModel(CHAIN, DirectedGraph(nodes, inputs=("x",)))


def log_normal(mean, square, variance):
    """E log N(y; m, variance), of the mean and the variance of y - m."""
    return -0.5 * (jnp.log(2 * jnp.pi * variance) + (square + mean**2) / variance)


def exact_elbo(params, x, q2, q1):
    """E_q log p(x, z) - log q(z), in closed form: q2 = (mean, variance) of z2 and q1 = (slope,
    shift, variance) of z1 given z2.
    """
    (m2, v2), (a, c, v1) = q2, q1
    p2, p1, p0 = (params.theta[name] for name in ("z2", "z1", "x"))
    w, b, s1 = p1["net"]["w"], p1["net"]["b"], jnp.exp(2 * p1["log_scale"])
    m1, total1 = a * m2 + c, a**2 * v2 + v1
    log_z2 = log_normal(m2 - p2["loc"][0], v2, jnp.exp(2 * p2["log_scale"][0]))
    log_z1 = log_normal(m1 - w * m2 - b, (a - w) ** 2 * v2 + v1, s1)
    u, d = p0["net"]["w"], p0["net"]["b"]
    log_x = log_normal(x - u * m1 - d, u**2 * total1, X_SCALE**2)
    entropy = 0.5 * (jnp.log(2 * jnp.pi * v2) + jnp.log(2 * jnp.pi * v1)) + 1
    return log_z2 + log_z1 + log_x + entropy


def log_evidence(params, x) -> float:
    """log p(x), z2 and z1 integrated out."""
    p2, p1, p0 = (jax.tree.map(np.asarray, params.theta[name]) for name in ("z2", "z1", "x"))
    u, w = p0["net"]["w"], p1["net"]["w"]
    mean = u * (w * p2["loc"][0] + p1["net"]["b"]) + p0["net"]["b"]
    above = w**2 * np.exp(2 * p2["log_scale"][0]) + np.exp(2 * p1["log_scale"])
    return float(log_normal(mean - x, 0.0, u**2 * above + X_SCALE**2))

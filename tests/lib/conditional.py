"""A conditional model in closed form."""

import jax.numpy as jnp

import vaejax
from tests.lib.oracles import Line, LinearGaussian


def conditional_line(point: LinearGaussian) -> tuple[vaejax.GraphModel, vaejax.Params]:
    """p(z | u) = N(u, 1), p(x | z) = N(w z + b, tau^2), q = N(mu, s^2), and the parameters: log p(x
    | u) = log N(x; w u + b, w^2 + tau^2).
    """
    prior = vaejax.Gaussian(Line(), scale=1.0)
    nodes = vaejax.Node("z", prior, "u"), vaejax.Node("x", point.model.likelihood, "z")
    model = vaejax.GraphModel(vaejax.DirectedGraph(nodes, inputs=("u",)), point.model.encoder)
    unit = {"net": {"w": jnp.ones(()), "b": jnp.zeros(())}}
    theta = {"z": unit, "x": point.params.theta["likelihood"]}
    return model, vaejax.Params(theta, point.params.phi)

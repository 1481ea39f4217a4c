"""What a gradient costs: evaluations of the decoder, forward and backward, counted in the program;
compiled time and memory.
"""

import statistics
import time
from dataclasses import replace
from functools import singledispatch
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

from vaejax.base.checks import require_count, require_key, require_kind
from vaejax.base.types import Key, Params, PyTree, Scalar
from vaejax.base.values import component
from vaejax.distributions.base import Distribution
from vaejax.estimators.base import as_estimator
from vaejax.inference.refined import Refined
from vaejax.models.around import AroundModel
from vaejax.models.base import (
    Conditional,
    Factor,
    Model,
    density_of,
    likelihood_of,
    prior_of,
)
from vaejax.models.graph_model import GraphModel
from vaejax.models.vae import VAE
from vaejax.objectives.base import Objective
from vaejax.variance.differentiated import differentiated
from vaejax.variance.marks import is_mark, mark


class Evaluations(NamedTuple):
    """How often p(x | z) is evaluated, and how often differentiated, for the gradient of one
    example.
    """

    forward: int
    backward: int


class Cost(NamedTuple):
    """Of one compiled gradient: the median time in seconds, and the bytes of its temporaries and
    results; 0 if not known.
    """

    seconds: float
    bytes: int


def decoder_evaluations(
    estimator: Any, model: Model, params: Params, x: PyTree, key: Key
) -> Evaluations:
    """Evaluations of the likelihood at one latent each, in the program of the estimator's gradient
    as it is written.

    Two evaluations at one z count as two, though a compiler may make them one. A derivative along a
    direction counts as backward. The steps of a `Refined` q count too. log p(x, z) of a model of
    your own is taken to be log p(z) + log p(x | z), so it needs `p_z` and `p_x_given_z`.
    """
    estimator = as_estimator(estimator)
    require_kind(model, Model, "the model")
    marked = counted(model)
    program = jax.make_jaxpr(jax.grad(lambda params: estimator(marked, params, x, key)))(params)
    return Evaluations(*(_count(program.jaxpr, linear) for linear in (False, True)))


def gradient_cost(
    objective: Objective,
    params: Params,
    x: PyTree,
    key: Key,
    repeats: int = 30,
    *,
    step: int | None = None,
) -> Cost:
    """Compiles the gradient of what the objective maximises, at a `step` of training where a weight
    moves with it, and runs it `repeats` times with a key each.
    """
    require_key(key)
    require_count(repeats, "repeats")
    gradient = jax.jit(jax.grad(differentiated(objective, step, x)))
    compiled = gradient.lower(params, x, key).compile()
    jax.block_until_ready(compiled(params, x, key))
    times = []
    for repeat in range(repeats):
        repeat_key = jax.random.fold_in(key, repeat)
        began = time.perf_counter()
        jax.block_until_ready(compiled(params, x, repeat_key))
        times.append(time.perf_counter() - began)
    memory = compiled.memory_analysis()
    size = 0 if memory is None else memory.temp_size_in_bytes + memory.output_size_in_bytes
    return Cost(statistics.median(times), size)


# Models whose evaluations of the likelihood leave a mark in the program.


@singledispatch
def counted(model: Model) -> Model:
    """The model, with a mark at each evaluation of its likelihood."""
    return CountedModel(model)


@counted.register
def _(model: VAE) -> Model:
    return replace(model, likelihood=CountedConditional(model.likelihood))


@counted.register
def _(model: GraphModel) -> Model:
    """The mark is at one observed node below a latent one, so that what reads the graph itself
    meets it.
    """
    latents = set(model.latents)
    below = [name for name in model.observed if latents & set(model.graph.drawn_parents(name))]
    if not below:
        raise ValueError(
            "decoder_evaluations: no observed node of the GraphModel has a latent parent"
        )
    node = model.graph[below[0]]
    marked = replace(node, conditional=CountedConditional(node.conditional))
    nodes = tuple(marked if other.name == node.name else other for other in model.graph.nodes)
    return replace(model, graph=replace(model.graph, nodes=nodes))


@counted.register
def _(model: Refined) -> Model:
    """The steps towards q evaluate the model inside."""
    return replace(model, model=counted(model.model))


@component
class CountedModel(AroundModel):
    """log p(z) + log p(x | z), with a mark at each likelihood."""

    model: Model

    def p_x_given_z(self, params: Params, z: PyTree, x: PyTree = None) -> Distribution:
        return marked_density(likelihood_of(self.model, params, z, x))

    def log_likelihood(self, params: Params, x: PyTree, z: PyTree) -> Scalar:
        return self.p_x_given_z(params, z, x).log_prob(self.observation(x))

    def log_densities(self, params: Params, x: PyTree, z: PyTree) -> tuple[Scalar, Scalar | None]:
        log_p_z = prior_of(self.model, params, x).log_prob(z)
        log_p_x = self.log_likelihood(params, x, z)
        return log_p_z + log_p_x, log_p_x

    def log_joint(self, params: Params, x: PyTree, z: PyTree) -> Scalar:
        return self.log_densities(params, x, z)[0]


@component
class CountedConditional(Conditional):
    """A factor with a mark at each density."""

    factor: Factor

    @property
    def support(self) -> Any:
        return self.factor.support

    def init(self, key: Key, given: Any) -> PyTree:
        return self.factor.init(key, given)

    def __call__(self, params: PyTree, given: Any) -> Distribution:
        return marked_density(density_of(self.factor, params, given))


def marked_density(p: Distribution) -> Distribution:
    """The same density, its parameters marked as one evaluation."""
    leaves, structure = jax.tree.flatten(p)
    inexact = [
        i for i, leaf in enumerate(leaves) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
    ]
    if not inexact:
        raise TypeError(
            f"decoder_evaluations marks the parameters of p(x | z), and {p.name} has none that are"
            " real numbers"
        )
    for i, leaf in zip(inexact, mark(*(jnp.asarray(leaves[i]) for i in inexact)), strict=True):
        leaves[i] = leaf
    return jax.tree.unflatten(structure, leaves)


def _count(program: Jaxpr, linear: bool) -> int:
    """The evaluations in a program; of the branches of a `cond`, those of the dearest."""
    total = 0
    for equation in program.eqns:
        if is_mark(equation):
            total += equation.params["times"] * (equation.params["linear"] == linear)
        counts = [_count(part, linear) for part in _programs(equation.params)]
        turns = equation.params["length"] if equation.primitive.name == "scan" else 1
        branches = equation.primitive.name == "cond"
        total += turns * (max(counts, default=0) if branches else sum(counts))
    return total


def _programs(parameters: dict[str, Any]) -> list[Jaxpr]:
    """The programs inside an equation."""
    leaves = jax.tree.leaves(
        list(parameters.values()), is_leaf=lambda part: isinstance(part, ClosedJaxpr | Jaxpr)
    )
    closed = [part.jaxpr if isinstance(part, ClosedJaxpr) else part for part in leaves]
    return [part for part in closed if isinstance(part, Jaxpr)]

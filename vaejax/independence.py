"""The variance of a minibatch gradient as the sum of its examples' variances: their noise is independent, so no cross term is measured.

A sample variance over draws of the whole batch estimates those cross terms, which are zero, with noise; without them a draw says as much
as some B draws. And nothing is kept for each example and parameter: what a dense layer's kernel gets from one example is a product h^T d
of its inputs h [r, in] and what comes back to its outputs d [r, out], with r rows for r uses (K samples, say). With successive draws s
and s + 1 in place of the unknown mean,

    sum_b Var(g_b) = E sum_b (g_s - g_(s+1))^2 / 2 = E sum_b [g_s^2 - g_s g_(s+1)],

and at r = 1 the sum of the squares is one matrix product (h*h)^T (d*d), that of the cross terms another. Where h does not move with the
noise, as in an encoder, there is no product in the loop at all. Other gradients are kept for each example and squared.

Which gradients are such products is read off the program that computes them, so that any objective of one example qualifies.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun
from jaxtyping import Array, Float

from vaejax.elbo import Minibatch, Objective
from vaejax.types import Key, Params, PyTree

FEWEST_EXAMPLES = 4
MOST_ROWS = 8  # of one example's h and d: all pairs of them are rows of a matrix product
MOST_NUMBERS = 100_000  # of one example's gradients that are not left as products


class Product(NamedTuple):
    """The gradient left^T right of a leaf, by the variables of the program. `moves`: the left one depends on the key."""

    left: tuple[Any, ...]
    right: tuple[Any, ...]
    moves: bool

    @property
    def rows(self) -> int:
        return sum(variable.aval.shape[0] for variable in self.left)


@dataclasses.dataclass(frozen=True)
class GradientProgram:
    """(value, gradient) of one example, with each leaf of the gradient a variable of the program, or a product of variables."""

    closed: ClosedJaxpr
    leaves: tuple[Any, ...]

    @property
    def value(self) -> Any:
        return self.closed.jaxpr.outvars[0]

    def __call__(self, variables: PyTree, *arguments: PyTree) -> PyTree:
        """The values of a tree of the program's variables; what they do not need is not computed."""
        wanted, structure = jax.tree.flatten(variables)
        some = self.closed.replace(jaxpr=self.closed.jaxpr.replace(outvars=wanted))
        return jax.tree.unflatten(structure, jaxpr_as_fun(some)(*jax.tree.leaves(arguments)))

    @property
    def numbers(self) -> int:
        """How many numbers it keeps of one example that are not in products."""
        return sum(leaf.aval.size for leaf in self.leaves if not isinstance(leaf, Product))


def gradient_program(objective: Objective, params: Params, x: PyTree, key: Key) -> GradientProgram:
    """The program of jax.value_and_grad(objective), with the products found in it that have at most `MOST_ROWS` rows."""
    closed = jax.make_jaxpr(jax.value_and_grad(objective))(params, x, key)
    jaxpr = closed.jaxpr
    source = {out: equation for equation in jaxpr.eqns for out in equation.outvars}
    moving = set(jaxpr.invars[-1:])
    for equation in jaxpr.eqns:
        if any(not isinstance(of, Literal) and of in moving for of in equation.invars):
            moving.update(equation.outvars)

    def pairs(variable) -> list[tuple[Any, Any]]:
        """(left, right) of each product whose sum the variable is; none, if it is something else."""
        equation = None if isinstance(variable, Literal) else source.get(variable)
        if equation is None:
            return []
        if equation.primitive.name == "add_any":
            some = [pairs(of) for of in equation.invars]
            return [pair for of in some for pair in of] if all(some) else []
        operands: list[Any] = list(equation.invars)
        plain = equation.params.get("dimension_numbers") == (((0,), (0,)), ((), ())) and all(of.aval.ndim == 2 for of in operands)
        return [tuple(operands)] if equation.primitive.name == "dot_general" and plain else []

    def leaf(variable):
        found = pairs(variable)
        if not found:
            return variable
        left, right = zip(*found, strict=True)
        product = Product(left, right, any(of in moving for of in left))
        return product if product.rows <= MOST_ROWS else variable

    return GradientProgram(closed, tuple(leaf(variable) for variable in jaxpr.outvars[1:]))


def program_of(objective: Any, params: Params, xs: PyTree, key: Key) -> GradientProgram:
    """The program of one example of a minibatch; ValueError, with the reason, where the sum over examples would not pay or not hold."""
    if not isinstance(objective, Minibatch):
        raise ValueError("the objective is no vaejax.minibatch, so its noise may be shared between examples")
    if len(jax.tree.leaves(xs)[0]) < FEWEST_EXAMPLES:
        raise ValueError(f"fewer than {FEWEST_EXAMPLES} examples")
    program = gradient_program(objective.objective, params, jax.tree.map(lambda leaf: leaf[0], xs), key)
    if program.numbers > MOST_NUMBERS:
        raise ValueError(f"one example's gradient has {program.numbers} numbers that are no products of {MOST_ROWS} rows or fewer")
    return program


@partial(jax.jit, static_argnames=("objective", "selectors", "num_draws"))
def moments_by_examples(objective: Minibatch, selectors: tuple, params: Params, xs: PyTree, key: Key, num_draws: int):
    """Of each draw the value [n] and an estimate of each group's trace [n, groups]; the mean gradient, and its variance.

    Draw s has the key fold_in(key, s), as everywhere; the last is paired with the first.
    """
    program = program_of(objective, params, xs, key)
    size = len(jax.tree.leaves(xs)[0])
    scale = (objective.dataset_size or 1) / size

    def at(s, variables):
        keys = jax.random.split(jax.random.fold_in(key, s % num_draws), size)
        return jax.vmap(lambda x, key: program(variables, params, x, key))(xs, keys)

    def draw(s):
        return at(s, (program.value, [variables(leaf) for leaf in program.leaves]))

    leaves, structure = jax.tree.flatten(params)
    fixed = [_rows(at(0, leaf.left)) if is_fixed(leaf) else None for leaf in program.leaves]
    masks = [jax.tree.leaves(jax.grad(lambda tree, select=select: _sum(select(tree)))(params)) for select in selectors]
    # A group's trace from what comes back to the outputs alone, where the inputs do not move.
    weights = [None if h is None else jnp.stack([_pairs(h, h) @ mask[i] for mask in masks]) for i, h in enumerate(fixed)]

    def traces(squares):
        tree = [jnp.zeros_like(leaf) if is_fixed(of) else part for leaf, of, part in zip(leaves, program.leaves, squares, strict=True)]
        of_others = jnp.stack([_sum(select(jax.tree.unflatten(structure, tree))) for select in selectors])
        of_fixed = [jnp.sum(w * part[None], axis=(1, 2)) for w, part in zip(weights, squares, strict=True) if w is not None]
        return sum(of_fixed, of_others)

    def step(s, carry):
        (value, now), sums, (values, kept) = carry
        after = draw(s + 1)
        means, squares = zip(*map(_of_draw, program.leaves, now, after[1]), strict=True)
        kept = values.at[s].set(jnp.mean(value)), kept.at[s].set(traces(squares))
        return after, jax.tree.map(jnp.add, sums, (list(means), list(squares))), kept

    first = draw(0)
    sums = jax.eval_shape(lambda now: [list(of) for of in zip(*map(_of_draw, program.leaves, now, now), strict=True)], first[1])
    nothing = jax.tree.map(jnp.zeros_like, sums)
    kept = jnp.zeros(num_draws, first[0].dtype), jnp.zeros((num_draws, len(selectors)), first[0].dtype)
    _, (means, squares), (values, kept) = jax.lax.fori_loop(0, num_draws, step, (first, tuple(nothing), kept))
    means = [mean if h is None else _merged(h).T @ mean for h, mean in zip(fixed, means, strict=True)]
    squares = [part if h is None else _pairs(h, h).T @ part for h, part in zip(fixed, squares, strict=True)]
    mean = jax.tree.unflatten(structure, [scale * mean / num_draws for mean in means])
    variance = jax.tree.unflatten(structure, [scale**2 * jnp.maximum(part, 0) / num_draws for part in squares])
    return values * scale * size, scale**2 * kept, mean, variance


def is_fixed(leaf: Any) -> bool:
    return isinstance(leaf, Product) and not leaf.moves


def variables(leaf: Any) -> Any:
    """What a draw needs of a leaf: itself, or (left, right), or the right factors alone."""
    if not isinstance(leaf, Product):
        return leaf
    return (leaf.left, leaf.right) if leaf.moves else leaf.right


def _of_draw(leaf: Any, now: Any, after: Any) -> tuple[jax.Array, jax.Array]:
    """Sums over the examples of g_s and of g_s^2 - g_s g_(s+1); where the left factor is fixed, before it is multiplied in."""
    if not isinstance(leaf, Product):
        return jnp.sum(now, axis=0), jnp.sum(now * (now - after), axis=0)
    if not leaf.moves:
        d, next_d = _rows(now), _rows(after)
        return _merged(d), _pairs(d, d - next_d)
    (h, d), (next_h, next_d) = map(_rows, now), map(_rows, after)
    left = jnp.concatenate([_pairs(h, h), _pairs(h, next_h)])
    return _merged(h).T @ _merged(d), left.T @ jnp.concatenate([_pairs(d, d), -_pairs(d, next_d)])


def _rows(factors: tuple) -> Float[Array, "b r n"]:
    return jnp.concatenate(factors, axis=1)


def _merged(rows: Float[Array, "b r n"]) -> Float[Array, "b*r n"]:
    return rows.reshape(-1, rows.shape[-1])


def _pairs(a: Float[Array, "b r n"], b: Float[Array, "b r n"]) -> Float[Array, "b*r*r n"]:
    """a_i b_j for all rows i and j of each example: (sum_i h_i d_i) (sum_j h'_j d'_j) is sum_ij (h_i h'_j) (d_i d'_j)."""
    return (a[:, :, None] * b[:, None]).reshape(-1, a.shape[-1])


def _sum(tree: PyTree) -> jax.Array:
    return jnp.sum(jnp.stack([jnp.sum(leaf) for leaf in jax.tree.leaves(tree)]))

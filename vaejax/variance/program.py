"""The program of one example's gradient, with the products that it is made of."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

from vaejax.base.types import Key, Params, PyTree
from vaejax.objectives.base import Maximised

FEWEST_EXAMPLES = 4
MOST_ROWS = 8  # of one example's h and d: all pairs of them are rows of a matrix product
MOST_NUMBERS = 100_000  # of one example's gradients that are not left as products

Variable = Any  # of a program: JAX's Var, or a Literal


class NotByExamplesError(ValueError):
    """The reason why a variance is not to be had, or not worth having, as a sum over examples."""


class Product(NamedTuple):
    """The sum of left_i^T right_i, by variables of the program; a vector is a matrix of one row.
    `moves`: a left one depends on the key.
    """

    left: tuple[Variable, ...]
    right: tuple[Variable, ...]
    moves: bool

    @property
    def rows(self) -> int:
        shapes = [variable.aval.shape for variable in self.left]
        return sum(shape[0] if len(shape) == 2 else 1 for shape in shapes)


class Leaf(NamedTuple):
    """A leaf of the gradient: its variable, and the product that it is, of few rows, if it is
    one.
    """

    variable: Variable
    product: Product | None


@dataclasses.dataclass(frozen=True)
class GradientProgram:
    """(value, gradient) of one example, read as a program."""

    closed: ClosedJaxpr
    leaves: tuple[Leaf, ...]
    width: int  # the largest array on the way that depends on the key

    @property
    def value(self) -> Variable:
        return self.closed.jaxpr.outvars[0]

    @property
    def numbers(self) -> int:
        """How many numbers of one example's gradient are not in products."""
        return sum(leaf.variable.aval.size for leaf in self.leaves if leaf.product is None)

    def __call__(self, variables: PyTree, *arguments: PyTree) -> PyTree:
        """The values of a tree of the program's variables; what they do not need is not
        computed.
        """
        wanted, structure = jax.tree.flatten(variables)
        shortened = self.closed.replace(jaxpr=self.closed.jaxpr.replace(outvars=wanted))
        values = jaxpr_as_fun(shortened)(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(structure, values)


def program_by_examples(
    example: Maximised, params: Params, xs: PyTree, key: Key
) -> GradientProgram:
    """The program of one example of a batch; NotByExamplesError where it would not pay."""
    if len(jax.tree.leaves(xs)[0]) < FEWEST_EXAMPLES:
        raise NotByExamplesError(f"fewer than {FEWEST_EXAMPLES} examples")
    program = gradient_program(example, params, jax.tree.map(lambda leaf: leaf[0], xs), key)
    if program.numbers > MOST_NUMBERS:
        raise NotByExamplesError(
            f"one example's gradient has {program.numbers} numbers that are not products of"
            f" {MOST_ROWS} rows or fewer"
        )
    return program


def gradient_program(function: Maximised, params: Params, x: PyTree, key: Key) -> GradientProgram:
    """The program of jax.value_and_grad(function), with the products in it of at most `MOST_ROWS`
    rows.
    """
    closed = jax.make_jaxpr(jax.value_and_grad(function))(params, x, key)
    jaxpr = closed.jaxpr
    moving = depend_on(jaxpr.invars[-1], jaxpr)
    makers = {out: equation for equation in jaxpr.eqns for out in equation.outvars}
    leaves = tuple(_leaf(variable, makers, moving) for variable in jaxpr.outvars[1:])
    return GradientProgram(closed, leaves, _width(jaxpr, moving))


def depend_on(argument: Variable, jaxpr: Jaxpr) -> set[Variable]:
    """The argument, and all variables of the program that are computed from it."""
    dependent = {argument}
    for equation in jaxpr.eqns:
        inputs = [variable for variable in equation.invars if not isinstance(variable, Literal)]
        if not dependent.isdisjoint(inputs):
            dependent.update(equation.outvars)
    return dependent


def _leaf(variable: Variable, makers: Mapping[Variable, JaxprEqn], moving: set[Variable]) -> Leaf:
    factors = _factors(variable, makers)
    if not factors:
        return Leaf(variable, None)
    left, right = zip(*factors, strict=True)
    product = Product(left, right, any(factor in moving for factor in left))
    return Leaf(variable, product if product.rows <= MOST_ROWS else None)


def _factors(
    variable: Variable, makers: Mapping[Variable, JaxprEqn]
) -> list[tuple[Variable, Variable]]:
    """(left, right) of each product whose sum the variable is; none, if it is something else."""
    maker = None if isinstance(variable, Literal) else makers.get(variable)
    if maker is None:
        return []
    if _is_sum(maker):
        terms = [_factors(term, makers) for term in maker.invars]
        return [pair for pairs in terms for pair in pairs] if all(terms) else []
    if _is_transpose(maker):
        return [(right, left) for left, right in _factors(maker.invars[0], makers)]
    if not _is_product(maker):
        return []
    left, right = maker.invars
    return [(left, right)]


def _width(jaxpr: Jaxpr, moving: set[Variable]) -> int:
    """The size of the largest array that depends on the key and is no gradient of a kernel."""
    on_the_way = _is_product, _is_sum, _is_transpose
    steps = [step for step in jaxpr.eqns if not any(is_one(step) for is_one in on_the_way)]
    outputs: list[Variable] = [out for step in steps for out in step.outvars]
    sizes = [out.aval.size for out in outputs if out in moving]
    return max(sizes, default=1)


def _is_sum(equation: JaxprEqn) -> bool:
    """A sum of gradients."""
    return equation.primitive.name == "add_any"


def _is_transpose(equation: JaxprEqn) -> bool:
    """Of a matrix."""
    return equation.primitive.name == "transpose" and equation.params["permutation"] == (1, 0)


def _is_product(equation: JaxprEqn) -> bool:
    """left^T right of two matrices, or of two vectors."""
    if equation.primitive.name != "dot_general":
        return False
    factors: list[Variable] = equation.invars
    axes = {1: (((), ()), ((), ())), 2: (((0,), (0,)), ((), ()))}
    dimensions = [axes.get(factor.aval.ndim) for factor in factors]
    return dimensions == [equation.params["dimension_numbers"]] * 2

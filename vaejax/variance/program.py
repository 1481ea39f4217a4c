"""The program of one example's gradient, with the products that are found in it."""

import dataclasses
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from vaejax.base.types import Key, Params, PyTree
from vaejax.objectives.base import Minibatch, Objective

FEWEST_EXAMPLES = 4


MOST_ROWS = 8  # of one example's h and d: all pairs of them are rows of a matrix product


MOST_NUMBERS = 100_000  # of one example's gradients that are not left as products


class Product(NamedTuple):
    """The gradient left^T right of a leaf, by the variables of the program. `moves`: the left one
    depends on the key.
    """

    left: tuple[Any, ...]
    right: tuple[Any, ...]
    moves: bool

    @property
    def rows(self) -> int:
        return sum(variable.aval.shape[0] for variable in self.left)


@dataclasses.dataclass(frozen=True)
class GradientProgram:
    """(value, gradient) of one example, with each leaf of the gradient a variable of the program,
    or a product of variables.
    """

    closed: ClosedJaxpr
    leaves: tuple[Any, ...]
    width: int  # the largest array on the way that depends on the key

    @property
    def value(self) -> Any:
        return self.closed.jaxpr.outvars[0]

    def __call__(self, variables: PyTree, *arguments: PyTree) -> PyTree:
        """The values of a tree of the program's variables; what they do not need is not
        computed.
        """
        wanted, structure = jax.tree.flatten(variables)
        some = self.closed.replace(jaxpr=self.closed.jaxpr.replace(outvars=wanted))
        return jax.tree.unflatten(structure, jaxpr_as_fun(some)(*jax.tree.leaves(arguments)))

    @property
    def numbers(self) -> int:
        """How many numbers it keeps of one example that are not in products."""
        return sum(leaf.aval.size for leaf in self.leaves if not isinstance(leaf, Product))


def gradient_program(objective: Objective, params: Params, x: PyTree, key: Key) -> GradientProgram:
    """The program of jax.value_and_grad(objective), with the products found in it that have at most
    `MOST_ROWS` rows.
    """
    closed = jax.make_jaxpr(jax.value_and_grad(objective))(params, x, key)
    jaxpr = closed.jaxpr
    source = {out: equation for equation in jaxpr.eqns for out in equation.outvars}
    moving = set(jaxpr.invars[-1:])
    for equation in jaxpr.eqns:
        if any(not isinstance(of, Literal) and of in moving for of in equation.invars):
            moving.update(equation.outvars)

    def pairs(variable) -> list[tuple[Any, Any]]:
        """(left, right) of each product whose sum the variable is; none, if it is something
        else.
        """
        equation = None if isinstance(variable, Literal) else source.get(variable)
        if equation is None:
            return []
        if equation.primitive.name == "add_any":
            some = [pairs(of) for of in equation.invars]
            return [pair for of in some for pair in of] if all(some) else []
        return [tuple(equation.invars)] if _is_product(equation) else []

    def leaf(variable):
        found = pairs(variable)
        if not found:
            return variable
        left, right = zip(*found, strict=True)
        product = Product(left, right, any(of in moving for of in left))
        return product if product.rows <= MOST_ROWS else variable

    steps = [
        equation
        for equation in jaxpr.eqns
        if not _is_product(equation) and equation.primitive.name != "add_any"
    ]
    sizes = [out.aval.size for equation in steps for out in equation.outvars if out in moving]
    return GradientProgram(
        closed, tuple(leaf(variable) for variable in jaxpr.outvars[1:]), max(sizes, default=1)
    )


def _is_product(equation: Any) -> bool:
    """left^T right of two matrices."""
    if equation.primitive.name != "dot_general" or any(
        len(of.aval.shape) != 2 for of in equation.invars
    ):
        return False
    return equation.params["dimension_numbers"] == (((0,), (0,)), ((), ()))


class NotByExamplesError(ValueError):
    """The reason why a variance is not to be had, or not worth having, as a sum over examples."""


def program_of(objective: Any, params: Params, xs: PyTree, key: Key) -> GradientProgram:
    """The program of one example of a minibatch; or NotByExamplesError."""
    if not isinstance(objective, Minibatch):
        raise NotByExamplesError(
            "the objective is no vaejax.minibatch, so its noise may be shared between examples"
        )
    if len(jax.tree.leaves(xs)[0]) < FEWEST_EXAMPLES:
        raise NotByExamplesError(f"fewer than {FEWEST_EXAMPLES} examples")
    program = gradient_program(
        objective.objective, params, jax.tree.map(lambda leaf: leaf[0], xs), key
    )
    if program.numbers > MOST_NUMBERS:
        raise NotByExamplesError(
            f"one example's gradient has {program.numbers} numbers that are no products of"
            f" {MOST_ROWS} rows or fewer"
        )
    return program

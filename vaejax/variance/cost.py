"""What a gradient costs: evaluations of the decoder, forward and backward, counted in the program;
compiled time and memory.
"""

import dataclasses
import statistics
import time
from typing import Any, NamedTuple

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.typing import ArrayLike

from vaejax.base.types import Key, Params, PyTree
from vaejax.base.values import component
from vaejax.estimators.base import Estimator
from vaejax.models.base import Conditional
from vaejax.objectives.base import Objective


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
    estimator: Estimator, model: Any, params: Params, x: PyTree, key: Key
) -> Evaluations:
    """Evaluations of the likelihood at one latent each, in the program of the estimator's gradient
    as it is written.

    Two evaluations at one z count as two, though a compiler may make them one. A derivative along a
    direction counts as backward.
    """
    counted = dataclasses.replace(model, likelihood=Counted(model.likelihood))
    program = jax.make_jaxpr(jax.grad(lambda params: estimator(counted, params, x, key)))(params)
    return Evaluations(*(_count(program.jaxpr, linear) for linear in (False, True)))


def gradient_cost(
    objective: Objective, params: Params, x: PyTree, key: Key, repeats: int = 30
) -> Cost:
    """Compiles the gradient of objective(params, x, key), and runs it `repeats` times with a key
    each.
    """
    compiled = jax.jit(jax.grad(objective)).lower(params, x, key).compile()
    jax.block_until_ready(compiled(params, x, key))
    times = []
    for repeat in range(repeats):
        one = jax.random.fold_in(key, repeat)
        began = time.perf_counter()
        jax.block_until_ready(compiled(params, x, one))
        times.append(time.perf_counter() - began)
    memory = compiled.memory_analysis()
    size = 0 if memory is None else memory.temp_size_in_bytes + memory.output_size_in_bytes
    return Cost(statistics.median(times), size)


@component
class Counted:
    """A conditional whose evaluations leave a mark in the program."""

    conditional: Conditional

    def init(self, key: Key, given: ArrayLike) -> PyTree:
        return self.conditional.init(key, given)

    def __call__(self, params: PyTree, given: ArrayLike) -> Any:
        leaves, structure = jax.tree.flatten(self.conditional(params, given))
        return jax.tree.unflatten(
            structure, [_mark.bind(leaves[0], times=1, linear=False), *leaves[1:]]
        )


def _count(jaxpr: Any, linear: bool) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive is _mark:
            total += equation.params["times"] * (equation.params["linear"] == linear)
        turns = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        inside = [
            _count(getattr(part, "jaxpr", part), linear) for part in _programs(equation.params)
        ]
        total += turns * (
            max(inside, default=0) if equation.primitive.name == "cond" else sum(inside)
        )
    return total


def _programs(parameters: dict[str, Any]) -> list[Any]:
    parts = [
        part
        for value in parameters.values()
        for part in (value if isinstance(value, tuple | list) else [value])
    ]
    return [part for part in parts if hasattr(getattr(part, "jaxpr", part), "eqns")]


# The identity, with a mark. Its derivative is the identity with the mark of a derivative, forward
# as in reverse.
_mark = Primitive("mark_of_evaluation")


def _derivative(primals, tangents, times, linear):
    (x,), (tangent,) = primals, tangents
    marked = (
        tangent if isinstance(tangent, ad.Zero) else _mark.bind(tangent, times=times, linear=True)
    )
    return _mark.bind(x, times=times, linear=linear), marked


def _batched(operands, axes, times, linear):
    (x,), (axis,) = operands, axes
    return _mark.bind(x, times=times * x.shape[axis], linear=linear), axis


_mark.def_impl(lambda x, times, linear: x)
_mark.def_abstract_eval(lambda x, times, linear: x)
mlir.register_lowering(_mark, lambda ctx, x, times, linear: [x])
ad.primitive_jvps[_mark] = _derivative
ad.primitive_transposes[_mark] = lambda cotangent, x, times, linear: [
    _mark.bind(cotangent, times=times, linear=True)
]
batching.primitive_batchers[_mark] = _batched

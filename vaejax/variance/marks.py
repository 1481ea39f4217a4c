"""Arrays that leave a mark in the program in which they are computed: the identity, as a primitive
of JAX whose `times` grow under `jax.vmap`. Its derivative is the identity with the mark of a
derivative, `linear`, forward as in reverse.
"""

from collections.abc import Sequence

import jax
from jax.extend.core import JaxprEqn, Primitive
from jax.interpreters import ad, batching, mlir

_mark = Primitive("mark_of_evaluation")
_mark.multiple_results = True


def mark(*arrays: jax.Array) -> list[jax.Array]:
    """The same arrays, marked as what one evaluation gives."""
    return _mark.bind(*arrays, times=1, linear=False)


def is_mark(equation: JaxprEqn) -> bool:
    return equation.primitive is _mark


def _bind_moving(tangents: Sequence, times: int) -> list:
    """The mark of one derivative over those that are not zero."""
    moving = [i for i, tangent in enumerate(tangents) if not isinstance(tangent, ad.Zero)]
    marked = list(tangents)
    if moving:
        results = _mark.bind(*(tangents[i] for i in moving), times=times, linear=True)
        for i, result in zip(moving, results, strict=True):
            marked[i] = result
    return marked


def _derivative(primals, tangents, times, linear):
    return _mark.bind(*primals, times=times, linear=linear), _bind_moving(tangents, times)


def _transposed(cotangents, *operands, times, linear):
    return _bind_moving(cotangents, times)


def _batched(operands, axes, times, linear):
    mapped = zip(operands, axes, strict=True)
    size = next(x.shape[axis] for x, axis in mapped if axis is not None)
    return _mark.bind(*operands, times=times * size, linear=linear), axes


_mark.def_impl(lambda *arrays, times, linear: list(arrays))
_mark.def_abstract_eval(lambda *arrays, times, linear: list(arrays))
mlir.register_lowering(_mark, lambda context, *arrays, times, linear: arrays)
ad.primitive_jvps[_mark] = _derivative
ad.primitive_transposes[_mark] = _transposed
batching.primitive_batchers[_mark] = _batched

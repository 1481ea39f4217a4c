"""How exact each density is: value, gradient and second derivative, in float32 and float64, against
mpmath with 60 digits. Prints docs/numerics.md.

    make numerics          # or: python scripts/numerics.py > docs/numerics.md, a minute

A density is asked of one coordinate, at typical, large, tiny, saturated, integer and infinite
arguments, those of `questions.py`. They are rounded to float32 first, so that an error is the
density's own.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
from questions import INF, QUESTIONS, Question

DIGITS = 60
DTYPES = ("float32", "float64")
ORDERS = ("value", "gradient", "second derivative")
TOLERATED = {"float32": 1e-3, "float64": 1e-9}  # beyond these the page marks an error


# The answers.


def answers(question: Question, dtype: str) -> np.ndarray:
    """[points, 1 + 2 arguments]: the value and both derivatives of the library, NaN where one is
    not asked: of the derivatives in x where it is discrete.
    """
    moving = range(1 if question.discrete else 0, len(question.names))

    def by_order(args):
        slopes = [jax.grad(lambda *a: question.density(*a).sum(), i) for i in moving]
        curves = [jax.grad(slope, i) for slope, i in zip(slopes, moving, strict=True)]
        parts = [question.density(*args), *(f(*args) for f in (*slopes, *curves))]
        return jnp.stack([jnp.asarray(part, dtype).reshape(()) for part in parts])

    arguments = jnp.asarray([rounded(point) for point in question.points], dtype)
    computed = np.array(jax.jit(jax.vmap(lambda row: by_order(tuple(row))))(arguments), np.float64)
    for i, point in enumerate(question.points):
        if point[0] == "integer":  # as whole numbers come out of a data set
            given = [jnp.asarray(number, dtype) for number in rounded(point)[1:]]
            computed[i, 0] = question.density(jnp.asarray(point[1], jnp.int32), *given).sum()
    return computed


def rounded(point: tuple) -> list[float]:
    return [float(np.float32(number)) for number in point[1:]]


def right_answers(question: Question) -> list[list[float]]:
    """The same by mpmath, and only the value at an infinite argument."""
    moving = range(1 if question.discrete else 0, len(question.names))
    rows = []
    for point in question.points:
        if point[0] == "infinite":
            rows.append([-INF])
            continue
        numbers = [mpmath.mpf(number) for number in rounded(point)]
        row = [question.exact(*numbers)]
        for order in (1, 2):
            for i in moving:

                def along(number, i=i, numbers=numbers):
                    return question.exact(*numbers[:i], number, *numbers[i + 1 :])

                row.append(mpmath.diff(along, numbers[i], order, relative=numbers[i] != 0))
        rows.append([float(number) for number in row])
    return rows


def error(number: float, right: float) -> float:
    """|number - right| / max(1, |right|): absolute up to 1, relative beyond; NaN for NaN, and
    infinite where one of them is.
    """
    if number == right:
        return 0.0
    return abs(number - right) / max(1.0, abs(right)) if math.isfinite(right) else INF + number


@dataclasses.dataclass(frozen=True)
class Worst:
    """The largest error of an order, and at which argument."""

    error: float
    place: str


def worst_errors(question: Question, right: list[list[float]], dtype: str) -> list[Worst]:
    """For the value, the gradient and the second derivative."""
    with jax.enable_x64(dtype == "float64"):
        computed = answers(question, dtype)
    with np.errstate(over="ignore"):  # what is beyond the dtype is infinite in it
        right = [[float(np.dtype(dtype).type(number)) for number in row] for row in right]
    count = (computed.shape[1] - 1) // 2
    orders = [[0], range(1, 1 + count), range(1 + count, 1 + 2 * count)]
    asked = list(zip(question.points, computed, right, strict=True))
    return [
        max(
            (
                Worst(error(row[i], truth[i]), place(question, point, i, count))
                for point, row, truth in asked
                for i in parts
                if i < len(truth)
            ),
            key=lambda worst: (math.isnan(worst.error), worst.error),
            default=Worst(0.0, ""),
        )
        for parts in orders
    ]


def place(question: Question, point: tuple, column: int, count: int) -> str:
    """The kind of argument, the arguments, and along which of them it is a derivative."""
    numbers = zip(question.names, point[1:], strict=True)
    where = ", ".join(f"{name} {number:.4g}" for name, number in numbers)
    names = question.names[-count:]
    along = f", in {names[(column - 1) % count]}" if column else ""
    return f"{point[0]}: {where}{along}"


# The page.


def cell(worst: Worst, dtype: str) -> str:
    if not worst.place:
        return "-"
    if worst.error <= np.finfo(dtype).eps / 2:
        return "exact"
    mark = "" if worst.error <= TOLERATED[dtype] else "**"
    return f"{mark}{worst.error:.0e}{mark} ({worst.place})"


def document(names: Sequence[str] = tuple(QUESTIONS)) -> str:
    """The page, of these densities."""
    lines = [
        "# How exact the densities are",
        "",
        "This page is the output of `make numerics`: the worst error of each density over the",
        "arguments in `scripts/questions.py`, typical, large, tiny, saturated, integer and",
        "infinite, against mpmath with 60 digits. An error is absolute where the right number is",
        "below 1, and relative beyond; `nan` is a result that is no number, `inf` an infinite one",
        "where it is finite, or a finite one where it is infinite. What is above 1e-3 in float32,",
        "or above 1e-9 in float64, is **bold**: there the density fails. Second derivatives are",
        "those in one argument. A flow adds the log-scales of its layers to its base, and is not",
        "asked here.",
        "",
        "Samples saturate too: float32 has no number between 1 - 6e-8 and 1. Relaxed variables",
        "live in logits and logarithms. NumPyro's Beta, Dirichlet, Gamma, Kumaraswamy, Weibull,",
        "inverse gamma and log-normal know the density of their own samples before rounding, and",
        "a bound of them errs low. So does one of a family that NumPyro makes by transforms, as",
        "far as these keep the coordinates apart and what they start from has a distribution",
        "function (a logit-normal, NumPyro's own RelaxedBernoulli). Of others, such as a",
        "correlated logit-normal or a normal mapped onto the simplex, the density of their own",
        "samples alone is known at an end: given a sample there, as `StickTheLanding` and `DReG`",
        "give one to q, and every bound to a prior, it is NaN, and `fit` stops.",
        "",
    ]
    with mpmath.workdps(DIGITS):
        right = {name: right_answers(QUESTIONS[name]) for name in names}
    for dtype in DTYPES:
        lines += [f"## {dtype}", "", f"| density | {' | '.join(ORDERS)} |", "|---" * 4 + "|"]
        for name in names:
            errors = worst_errors(QUESTIONS[name], right[name], dtype)
            lines.append(f"| {name} | {' | '.join(cell(worst, dtype) for worst in errors)} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(document(), end="")

"""Checks of arguments: each raises an error of one line that names the value and the remedy."""

import dataclasses
import difflib
import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def plain_number(number: Any) -> Any:
    """Python's own number for one of NumPy's, or for an array of no axes; all else as it is.

    An array that is being traced is no number yet.
    """
    if isinstance(number, Tracer):
        return number
    if isinstance(number, np.generic | np.ndarray | jax.Array) and np.ndim(number) == 0:
        numeric = any(jnp.issubdtype(number.dtype, kind) for kind in (jnp.number, jnp.bool_))
        return number.item() if numeric else number
    return number


def is_whole(number: Any) -> bool:
    """Whether it is a whole number of Python's or NumPy's; True and False are none."""
    return isinstance(number, numbers.Integral) and not isinstance(number, bool)


def is_finite(number: Any) -> bool:
    """Whether it is a finite number of Python's or NumPy's; True and False are none."""
    real = isinstance(number, numbers.Real) and not isinstance(number, bool | np.bool)
    return real and (is_whole(number) or math.isfinite(number))  # of which some are no float


@dataclasses.dataclass(frozen=True)
class Integers:
    """The whole numbers from `least` to `most`, both with, or from `least` on where `most` is None;
    of these the multiples of `factor`.
    """

    least: int
    most: int | None = None
    factor: int = 1

    def __str__(self) -> str:
        kind = "a whole number" if self.factor == 1 else f"a multiple of {self.factor}"
        if self.most is None:
            return f"{kind}, at least {self.least}"
        return f"{kind} from {self.least} to {self.most}"

    def __contains__(self, number: Any) -> bool:
        top = math.inf if self.most is None else self.most
        return is_whole(number) and self.least <= number <= top and number % self.factor == 0


# The numbers that a device computes with, but for 0: smaller ones are 0 there.
SINGLE_LEAST, SINGLE_MOST = (
    float(end) for end in (np.finfo(np.float32).tiny, np.finfo(np.float32).max)
)


@dataclasses.dataclass(frozen=True)
class Reals:
    """The finite numbers from `low` to `high`, without the two where `is_open`; in float32 too, in
    which 1e-45 is 0 on a device, and 1e39 is infinite.
    """

    low: float = -math.inf
    high: float = math.inf
    is_open: bool = False

    def __str__(self) -> str:
        if self.low == -math.inf:
            return "a finite number in float32"
        if self.high < math.inf:
            return f"a number {'between' if self.is_open else 'from'} {self.low:g} " + (
                f"{'and' if self.is_open else 'to'} {self.high:g}"
            )
        return (
            "positive and finite in float32" if self.is_open else f"a number, at least {self.low:g}"
        )

    def __contains__(self, number: Any) -> bool:
        if not is_finite(number) or not self.low <= number <= self.high:
            return False
        size = abs(plain_number(number))
        if size > SINGLE_MOST:
            return False
        single = np.float32(number) if size >= SINGLE_LEAST else 0.0
        return not (self.is_open and single in (self.low, self.high))


Range = Integers | Reals
SEEDS = Integers(0, 2**32 - 1)  # a key has no more bits: 2**32 would be seed 0


def require_in(number: float, name: str, known: Range) -> None:
    """Raises ValueError unless the number is in the range."""
    if number not in known:
        raise ValueError(f"{name} = {number!r}; it must be {known}")


def require_count(number: int, name: str, least: int = 1) -> None:
    """Raises ValueError unless it is a whole number, at least `least`."""
    require_in(number, name, Integers(least))


def require_number(number: float, name: str) -> None:
    """Raises ValueError unless it is a finite number."""
    require_in(number, name, Reals())


def require_positive(number: float, name: str) -> None:
    """Raises ValueError unless it is a finite number above 0."""
    require_in(number, name, Reals(0, is_open=True))


def require_numbers(owner: Any, **numbers: float) -> None:
    """Raises ValueError unless each is a finite number, at least 0."""
    for name, number in numbers.items():
        require_in(number, f"{type(owner).__name__}.{name}", Reals(0))


def require_counts(counts: tuple[int, ...], name: str) -> None:
    """Raises ValueError unless it is a tuple of whole numbers, each at least 1; it may be empty."""
    if not isinstance(counts, tuple):
        raise ValueError(f"{name} = {counts!r}; it must be a tuple of whole numbers, such as (64,)")
    for i, count in enumerate(counts):
        require_count(count, f"{name}[{i}]")


def require_shape(shape: int | tuple[int, ...], name: str) -> None:
    """Raises ValueError unless it is a whole number or a tuple of such, each at least 1."""
    if isinstance(shape, tuple):
        require_counts(shape, name)
    else:
        require_count(shape, name)


def require_scalar(number: Any, name: str, remedy: str) -> Any:
    """The number; ValueError for an array, by its shape alone, and TypeError for None."""
    if number is None:
        raise TypeError(f"{name} is None; it must be one number: is there a `return`?")
    shape = jnp.shape(number)
    if shape != ():
        raise ValueError(f"{name} has shape {shape}; it must be one number: {remedy}")
    return number


def require_key(key: Any) -> None:
    """Raises TypeError for what is no random key of JAX's, such as a whole number."""
    of_keys = isinstance(key, jax.Array | np.ndarray) and (
        key.dtype == np.uint32 or jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    )
    if not of_keys:
        raise TypeError(f"key = {shortened(key)}; give a random key, such as jax.random.key(0)")


def unknown_name(kind: str, name: str, known: list[str]) -> str:
    """The message for a name that is not in the table: the nearest known ones first."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown {kind} {name!r}; {hint}known: {', '.join(known)}"


def require_said(cls: type, base: type, name: str, question: str) -> None:
    """Raises TypeError unless a subclass of `base`, or a class between the two, defines `name`.

    There is no default where one would be right for some and silently wrong for others.
    """
    for ancestor in cls.__mro__:
        if ancestor is base:
            break
        if name in vars(ancestor) or name in vars(ancestor).get("__annotations__", {}):
            return
    raise TypeError(f"{cls.__name__} does not say `{name}`: {question}")


def require_kind(found: Any, kind: type, role: str, home: str = "vaejax") -> None:
    """Raises TypeError for a part that does not derive from the base class of its kind, which users
    find in `home`.
    """
    require_no_class(found, role)
    if not isinstance(found, kind):
        raise TypeError(
            f"{role} is {shortened(found)}, which does not derive from {home}.{kind.__name__}; its"
            " docstring is the recipe for one of your own"
        )


def require_no_class(found: Any, role: str) -> None:
    """Raises TypeError for a class where a value of it belongs."""
    if isinstance(found, type):
        raise TypeError(f"{role} is the class {found.__name__}; write {found.__name__}(...)")


def shortened(found: Any) -> str:
    """How an error calls something of unknown length: its repr in one line, cut."""
    line = " ".join(repr(found).split())
    return line if len(line) <= 80 else line[:77] + "..."

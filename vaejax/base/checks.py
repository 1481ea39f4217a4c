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
from jax.typing import ArrayLike


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


LARGEST_COUNT = 2**31 - 1  # steps, sizes and rows are int32 on the device: one more is negative


@dataclasses.dataclass(frozen=True)
class Integers:
    """The whole numbers from `least` to `most`, both with; of these the multiples of `factor`."""

    least: int
    most: int = LARGEST_COUNT
    factor: int = 1

    def __str__(self) -> str:
        kind = "a whole number" if self.factor == 1 else f"a multiple of {self.factor}"
        if self.most == LARGEST_COUNT:
            return f"{kind}, at least {self.least} and below 2**31"
        return f"{kind} from {self.least} to {self.most}"

    @property
    def brief(self) -> str:
        """The range in a few words, for the help of a flag."""
        kind = "" if self.factor == 1 else f"a multiple of {self.factor}, "
        if self.most == LARGEST_COUNT:
            return f"{kind}at least {self.least}"
        return f"{kind}from {self.least} to {self.most}"

    def __contains__(self, number: Any) -> bool:
        in_range = is_whole(number) and self.least <= number <= self.most
        return in_range and number % self.factor == 0


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

    @property
    def brief(self) -> str:
        """The range in a few words, for the help of a flag; none where every number is in it."""
        if self.low == -math.inf:
            return ""
        if self.high < math.inf:
            words = ("between", "and") if self.is_open else ("from", "to")
            return f"{words[0]} {self.low:g} {words[1]} {self.high:g}"
        return f"above {self.low:g}" if self.is_open else f"at least {self.low:g}"

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
    """Raises ValueError unless it is a whole number, at least `least` and below 2**31."""
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


_NUMBERS = int | float | np.generic | np.ndarray | jax.Array


def require_scalar(number: Any, name: str, remedy: str) -> Any:
    """The number; ValueError for an array, by its shape alone, and TypeError for what is no number,
    or one of a dtype in which it would lose its gradient or its digits: a flag, a whole number of
    an array, a float of fewer than 32 bits.
    """
    if number is None:
        raise TypeError(f"{name} is None; it must be one number: is there a `return`?")
    if isinstance(number, bool) or not isinstance(number, _NUMBERS):
        raise TypeError(f"{name} is of type {type(number).__name__}; it must be one number")
    shape = jnp.shape(number)
    if shape != ():
        raise ValueError(f"{name} has shape {shape}; it must be one number: {remedy}")
    dtype = jnp.result_type(number)
    is_float = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize >= 4
    if not is_float and not isinstance(number, int):
        raise TypeError(
            f"{name} is of dtype {dtype}; it must be a float of 32 bits at least, or its gradient"
            " or its digits are lost"
        )
    return number


def shape_of(value: Any) -> Any:
    """The shape of an array, or of nested lists of numbers; of another tree those of its leaves."""
    plain = bool | int | float | np.generic
    is_nested = isinstance(value, list | tuple)
    if is_nested and all(isinstance(leaf, plain) for leaf in jax.tree.leaves(value)):
        return np.shape(value)
    return jax.tree.map(jnp.shape, value)


def require_key(key: Any) -> None:
    """Raises TypeError for what is no random key of JAX's, such as a whole number, and ValueError
    for several of them.
    """
    shape = _shape_of_keys(key)
    if shape is None:
        raise TypeError(f"key = {shortened(key)}; give a random key, such as jax.random.key(0)")
    if shape != ():
        raise ValueError(
            f"key holds keys of shape {shape}; give one of them, or jax.vmap what takes one"
        )


def require_keys(keys: Any) -> None:
    """Raises TypeError for what is no array of random keys, and ValueError unless it is a row."""
    shape = _shape_of_keys(keys)
    if shape is None or len(shape) != 1:
        error = TypeError if shape is None else ValueError
        raise error(
            f"keys = {shortened(keys)}; give a row of random keys, such as"
            " jax.random.split(jax.random.key(0), 8)"
        )


def is_key(leaf: ArrayLike) -> bool:
    """Whether it is an array of typed keys, of which neither NumPy nor a file knows."""
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)


def _shape_of_keys(keys: Any) -> tuple[int, ...] | None:
    """() of one random key, typed or raw; None of what is none."""
    if not isinstance(keys, jax.Array | np.ndarray):
        return None
    if is_key(keys):
        return keys.shape
    if keys.dtype != np.uint32 or keys.ndim == 0:
        return None
    words = jax.eval_shape(jax.random.PRNGKey, 0).shape  # of a raw key, by JAX's configuration
    return keys.shape[:-1] if keys.shape[-1:] == words else None


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


def require_kind(value: Any, kind: type, role: str, home: str = "vaejax") -> None:
    """Raises TypeError for a part that does not derive from the base class of its kind, which users
    find in `home`.
    """
    require_no_class(value, role)
    if not isinstance(value, kind):
        raise TypeError(
            f"{role} is {shortened(value)}, which does not derive from {home}.{kind.__name__}; its"
            " docstring is the recipe for one of your own"
        )


def require_no_class(value: Any, role: str) -> None:
    """Raises TypeError for a class where a value of it belongs."""
    if isinstance(value, type):
        raise TypeError(f"{role} is the class {value.__name__}; write {value.__name__}(...)")


def shortened(value: Any) -> str:
    """How an error calls something of unknown length: its repr in one line, cut."""
    line = " ".join(repr(value).split())
    return line if len(line) <= 80 else line[:77] + "..."

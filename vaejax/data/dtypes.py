"""Stored numbers in the dtype that the device has for them: what would be another number there is
refused.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vaejax.base.supports import PIECE
from vaejax.base.types import PyTree

X64 = 'or set jax.config.update("jax_enable_x64", True) first'
# A column is refused if float32 leaves it fewer digits of its variation than these; one that varies
# by rounding alone, by so many units in the last place of float64, counts as constant.
LEAST_DIGITS = 1e-3
FEWEST_ROWS = 3  # two may be as close as that by chance
SAME_IN_FLOAT64 = 64 * np.finfo(np.float64).eps
EXACT_IN_FLOAT32 = 2**24  # up to here every whole number is a float32

CLASSES = ": of classes, np.unique(x, return_inverse=True)[1], one-hot"
INSTEAD = {  # by the kind of a dtype: how real numbers are made of it
    "O": ": x.astype(np.float32), or np.stack(rows) of rows of one shape",
    "U": CLASSES,
    "S": CLASSES,
    "T": CLASSES,
    "M": ': the time since the first, (x - x.min()) / np.timedelta64(1, "s")',
    "m": ': a number of units, x / np.timedelta64(1, "s")',
    "c": ": np.stack([x.real, x.imag], -1)",
    "V": ": an array for each field, {name: x[name] for name in x.dtype.names}",
}


def is_float(dtype: np.dtype) -> bool:
    """Whether it is a float of NumPy's or of `ml_dtypes`, such as bfloat16."""
    return jnp.issubdtype(dtype, jnp.floating)


def is_floating(dtype: np.dtype) -> bool:
    """Whether it has real numbers or booleans, which JAX knows too."""
    if dtype.kind == "m":  # which NumPy counts among the whole numbers
        return False
    return is_float(dtype) or any(jnp.issubdtype(dtype, kind) for kind in (jnp.integer, jnp.bool_))


def require_real(dtype: np.dtype, name: str) -> None:
    """Raises ValueError for what is no array of real numbers."""
    if not is_floating(dtype):
        raise ValueError(
            f"{name} has dtype {dtype}; give real numbers{INSTEAD.get(dtype.kind, '')}"
        )


def native(array: np.ndarray) -> np.ndarray:
    """The same numbers in a dtype that JAX knows: of 64 bits at most, in the machine's order."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    if array.dtype.isnative:
        return array
    return array.astype(array.dtype.newbyteorder("="))


def on_device(stored: PyTree, name: str) -> PyTree:
    """The numbers that the device will have of these arrays; those that it has are left. Without
    `jax_enable_x64` it has no 64 bits: ValueError where whole numbers are beyond its 32, or floats
    beyond its largest.
    """
    return jax.tree.map(
        lambda leaf: _on_device(leaf, name) if isinstance(leaf, np.ndarray) else leaf, stored
    )


def _on_device(stored: np.ndarray, name: str) -> np.ndarray:
    require_real(stored.dtype, name)
    stored = native(stored)
    dtype = jax.dtypes.canonicalize_dtype(stored.dtype)
    if dtype == stored.dtype or stored.size == 0:
        return stored
    if stored.dtype.kind in "iu":
        low, high, limits = stored.min(), stored.max(), np.iinfo(dtype)
        if low < limits.min or high > limits.max:
            raise ValueError(
                f"{name} has whole numbers in [{low}, {high}], and the device's are {dtype}, where"
                f" they would be others: subtract an offset, {X64}"
            )
        return stored.astype(dtype)
    with np.errstate(over="ignore", under="ignore"):
        seen = stored.astype(dtype)
    if np.isinf(seen).any() and np.isfinite(stored).all():
        largest = np.abs(stored).max()
        raise ValueError(
            f"{name} has numbers up to {largest:g}, and the device's are {dtype}, where they are"
            f" infinite: give them in a larger unit, {X64}"
        )
    return seen


def first_not_finite(array: np.ndarray) -> tuple[int, ...] | None:
    """The place of the first NaN or infinity; None where all is finite."""
    if not is_float(array.dtype):
        return None
    finite = np.isfinite(array)
    if finite.all():
        return None
    return tuple(map(int, np.unravel_index(np.argmin(finite), np.shape(array))))


def require_digits(stored: PyTree, name: str, *, whole: bool = False) -> None:
    """Raises ValueError for rows [n, ...] with a column whose differences are lost in float32:
    seconds since 1970, for example. `whole`: also where a density is what takes it as float32.
    """
    for leaf in jax.tree.leaves(stored):
        if isinstance(leaf, np.ndarray) and _may_lose_digits(leaf, whole):
            _require_digits(leaf, name)


def _require_digits(stored: np.ndarray, name: str) -> None:
    columns = stored.reshape(len(stored), -1)
    width = max(1, PIECE // len(stored))
    for start in range(0, columns.shape[1], width):
        part = columns[:, start : start + width].astype(np.float64)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            rounding = np.abs(part - part.astype(np.float32)).max(axis=0)
            low, high = part.min(axis=0), part.max(axis=0)
            spread = high - low
        varies = spread > SAME_IN_FLOAT64 * np.maximum(np.abs(low), np.abs(high))
        lost = varies & (rounding > LEAST_DIGITS * spread)
        if lost.any():
            column = int(np.argmax(lost))
            place = f" in column {start + column}" if columns.shape[1] > 1 else ""
            raise ValueError(
                f"{name} varies by {spread[column]:.3g} around {low[column]:.10g}{place}, and"
                f" float32 rounds that by {rounding[column]:.3g}: subtract an offset in float64,"
                f" such as x - x.mean(0), {X64}"
            )


def _may_lose_digits(stored: np.ndarray, whole: bool) -> bool:
    """Whether float32, in which densities are computed without x64, may round these numbers."""
    if stored.size == 0:
        return False
    if jax.dtypes.canonicalize_dtype(np.float64) == np.float64 or len(stored) < FEWEST_ROWS:
        return False
    if whole and stored.dtype.kind in "iu" and stored.dtype.itemsize >= 4:
        return bool(max(-int(stored.min()), int(stored.max())) > EXACT_IN_FLOAT32)
    return is_rounded(stored.dtype)


def is_rounded(dtype: np.dtype) -> bool:
    """Whether the device has fewer digits for floats of this dtype."""
    return dtype == np.float64 and jax.dtypes.canonicalize_dtype(dtype) != dtype

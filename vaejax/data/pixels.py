"""What the model sees of a stored image."""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from vaejax.base.checks import SEEDS, require_in, require_positive, unknown_name
from vaejax.base.supports import BINARY
from vaejax.base.types import Key, PyTree
from vaejax.base.values import component
from vaejax.data.base import Dataset, Split
from vaejax.data.transforms import Transform, supports_of_leaves

Policy = Literal["dynamic", "static", "threshold", "none"]


@component
class Pixels(Transform):
    """What the model sees of one stored image: x in {0, 1}, or in [0, 1] under the policy "none".
    `Pixels(255)(x, key)`.

    dynamic: x ~ Bernoulli(stored / maximum), afresh from the key. threshold: stored / maximum >
    1/2. none: stored / maximum.
    """

    maximum: float
    policy: Policy = "dynamic"

    def __post_init__(self):
        require_positive(self.maximum, "Pixels.maximum")

    def __call__(self, stored: ArrayLike, key: Key) -> jax.Array:
        x = jnp.asarray(stored, jnp.float32) / self.maximum
        if self.policy == "dynamic":
            return jax.random.bernoulli(key, x).astype(x.dtype)
        return (x > 0.5).astype(x.dtype) if self.policy == "threshold" else x

    def originals(self, stored: Any) -> Any:
        return None if self.policy == "none" else np.asarray(stored) / self.maximum

    def check(self, stored: PyTree, support: Any, name: str) -> None:
        x = jax.tree.leaves(stored)[0]
        low, high = x.min(), x.max()
        if self.maximum > 1 and low >= 0 and high <= 1 and _is_scaled(x):
            raise ValueError(
                f"{name} has values in [{low:g}, {high:g}] of {x.dtype}, which would be divided by"
                f" {self.maximum:g}; they are scaled already: give the maximum 1"
            )
        if low < 0 or high > self.maximum:
            raise ValueError(
                f"{name} has values in [{low}, {high}], outside 0..{self.maximum:g}; give the"
                " maximum that is theirs"
            )
        wanted = supports_of_leaves(x, support)[0]
        if self.policy == "none" and not wanted.contains(x, self.maximum):
            binarise = (
                "choose a binarisation, one of dynamic, static or threshold, or a likelihood of"
                " grey pixels, such as ContinuousBernoulli or Gaussian"
            )
            rescale = (
                f"these are multiples of 1/{self.maximum:g}: give the likelihood"
                f" num_levels={self.maximum + 1:g}"
            )
            raise ValueError(
                f"{name} is grey and this likelihood is for {wanted.description}:"
                f" {binarise if wanted == BINARY else rescale}"
            )


@component
class Unchanged(Transform):
    """What the model sees of real numbers: themselves."""

    def __call__(self, stored: ArrayLike, key: Key) -> jax.Array:
        return jnp.asarray(stored, jnp.float32)

    def check(self, stored: PyTree, support: Any, name: str) -> None:
        x = jax.tree.leaves(stored)[0]
        wanted = supports_of_leaves(x, support)[0]
        if not wanted.contains(x):
            raise ValueError(
                f"{name} has real numbers in [{x.min():g}, {x.max():g}], and this likelihood is for"
                f" {wanted.description}: choose one of real numbers, such as Gaussian (--likelihood"
                " gaussian), or, where they are pixels, say the largest that there can be, by"
                " maximum= (--maximum)"
            )


def _is_scaled(x: np.ndarray) -> bool:
    """Whether these values of [0, 1] are no stored levels 0, 1, ...: booleans, or fractions."""
    return x.dtype == np.bool_ or not BINARY.contains(x)


def prepare_pixels(
    dataset: Dataset, policy: Policy = "dynamic", seed: int = 0
) -> tuple[Dataset, Transform]:
    """(data set, transform) under a binarisation policy; only "static", drawn here once from
    `seed`, changes what is stored. Pixels that are 0 and 1 alone stay as they are under each.

    Results under "static" and "dynamic" are not comparable: say which. Real numbers, of a data set
    without a maximum, stay as they are under "none", and are refused under the others.
    """
    require_in(seed, "seed", SEEDS)
    if policy not in get_args(Policy):
        raise ValueError(unknown_name("binarisation", policy, list(get_args(Policy))))
    parts = (dataset.train, dataset.valid, dataset.test)
    if dataset.maximum is None:
        if policy == "none":
            return dataset, Unchanged()
        raise ValueError(
            f"binarisation = {policy!r} is for pixels, and {dataset.source}: give the policy none"
            " and a likelihood of real numbers (--binarisation none --likelihood gaussian), or,"
            " where they are pixels, the largest that there can be, by maximum= (--maximum)"
        )
    if dataset.maximum == 1 and all(BINARY.contains(np.asarray(part.images)) for part in parts):
        return dataset, Pixels(1, "none")
    if policy != "static":
        return dataset, Pixels(dataset.maximum, policy)
    generator = np.random.default_rng(seed)
    drawn = [
        Split((generator.random(images.shape) < images / dataset.maximum).astype(np.uint8), labels)
        for images, labels in parts
    ]
    source = f"{dataset.source}; binarised once with seed {seed}"
    return Dataset(dataset.name, *drawn, maximum=1, source=source), Pixels(1, "none")

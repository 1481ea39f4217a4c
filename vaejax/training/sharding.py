"""How the parameters and the optimiser's state lie on the devices of a mesh: a rule, which is a
value.
"""

import math

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vaejax.base.checks import require_count, shortened
from vaejax.base.devices import placed, put
from vaejax.base.fields import Count
from vaejax.base.types import PyTree
from vaejax.base.values import component


@component
class ShardingRule:
    """Where each array of the parameters, and of the optimiser's state, lies on a mesh.

    Derive it for a rule of your own:

        @vaejax.component
        class ByColumns(vaejax.ShardingRule):
            def spec(self, shape, size):
                is_matrix = len(shape) == 2 and shape[1] % size == 0
                return PartitionSpec(None, "data") if is_matrix else PartitionSpec()
    """

    def spec(self, shape: tuple[int, ...], size: int) -> PartitionSpec:
        """Over which axes of the mesh an array of this shape is split, where the axis "data" has
        `size` devices.
        """
        raise NotImplementedError(f"{type(self).__name__}.spec")


@component
class Replicated(ShardingRule):
    """Every array lies whole on each device."""

    def spec(self, shape: tuple[int, ...], size: int) -> PartitionSpec:
        return PartitionSpec()


@component
class FullyShardedDataParallel(ShardingRule):
    """An array of `at_least` so many numbers is split over the axis "data", along the largest of
    its own axes that so many devices divide; the others lie whole on each device.

    So parameters and both moments of Adam take 1 / devices of their memory on each; the compiler
    gathers an array where a step uses it, and scatters its gradient (ZeRO, stage 3: Rajbhandari et
    al. 2020).
    """

    at_least: Count = 2**18

    def __post_init__(self):
        require_count(self.at_least, "FullyShardedDataParallel.at_least")

    def spec(self, shape: tuple[int, ...], size: int) -> PartitionSpec:
        lengths = [length if length % size == 0 else 0 for length in shape]
        if math.prod(shape) < self.at_least or max(lengths, default=0) == 0:
            return PartitionSpec()
        axis = lengths.index(max(lengths))
        return PartitionSpec(*(None,) * axis, "data")


def checked_rule(rule: ShardingRule | None, mesh: Mesh | None) -> ShardingRule:
    """The rule, or `Replicated()`. TypeError for what is none, ValueError without a mesh."""
    if rule is None:
        return Replicated()
    if not isinstance(rule, ShardingRule):
        raise TypeError(
            f"sharding = {shortened(rule)}; give vaejax.Replicated() or"
            " vaejax.FullyShardedDataParallel()"
        )
    if mesh is None:
        raise ValueError(
            f"sharding = {shortened(rule)} without a mesh; give one, such as"
            ' mesh=jax.make_mesh((2,), ("data",))'
        )
    return rule


def shardings(rule: ShardingRule, mesh: Mesh, tree: PyTree) -> PyTree:
    """For each array of a tree its place on the mesh."""
    size = mesh.shape["data"]
    return jax.tree.map(lambda leaf: NamedSharding(mesh, rule.spec(leaf.shape, size)), tree)


def placed_by(rule: ShardingRule, mesh: Mesh | None, tree: PyTree) -> PyTree:
    """The arrays at their places on the mesh; where there is none, where they lie."""
    if mesh is None:
        return placed(tree, None)
    return jax.tree.map(put, tree, shardings(rule, mesh, tree))

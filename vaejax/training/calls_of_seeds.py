"""The calls of the steps of several seeds: all in one program, one after another, or shared by the
host's devices.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from vaejax.base.devices import placed, under_mesh
from vaejax.base.types import Key, Params, PyTree
from vaejax.training.calls import Call, Calls, are_acceptable
from vaejax.training.feeds import Examples, Order, padded, steps_per_call
from vaejax.training.run import NonFiniteError, Record, Run, recorded
from vaejax.training.trainer import Trainer, run_steps

SeedWay = Literal["vmap", "map", "cores"]
MOST_PLACES = 2**23  # of all seeds in one call: 32 MiB go to the devices with it


@dataclass(frozen=True, eq=False)
class Seeds:
    """A training from several seeds: what they share, and what each has before the first step."""

    trainer: Trainer
    data: PyTree
    keys: Key
    params: Params
    opt_state: PyTree

    def __len__(self) -> int:
        return len(self.keys)


class Turn(NamedTuple):
    """What a turn has of its own: a seed's parameters, the state of its optimiser, the places of
    its batches in the data [steps, batch], and the key of its noise.
    """

    params: Params
    opt_state: PyTree
    places: ArrayLike
    noise_key: Key


class Shared(NamedTuple):
    """What all turns have: the data, and the first and the number of the steps."""

    data: PyTree
    start: ArrayLike
    num_steps: ArrayLike


class CallsOfSeeds(Calls):
    """Those of `fit_seeds`, whose run has a leading axis of turns: the seeds, of which the last are
    repeated where a device would have none.
    """

    def __init__(self, seeds: Seeds, way: SeedWay):
        super().__init__()
        self._seeds, self.num_seeds = seeds, len(seeds)
        self._mesh = _mesh_for(way, self.num_seeds)
        self._program = seeds.trainer, way, self._mesh
        width = 1 if self._mesh is None else self._mesh.size
        self._turns = np.arange(-(-self.num_seeds // width) * width) % self.num_seeds
        keys = jax.vmap(lambda key: jax.random.split(key, 3))(seeds.keys)  # as `fit` splits its own
        order_keys, noise_keys = keys[:, 0], keys[:, 1]
        size, batch_size = len(jax.tree.leaves(seeds.data)[0]), seeds.trainer.batch_size
        self._orders = [Order(order_keys[turn], size, batch_size) for turn in self._turns]
        self._length = steps_per_call(batch_size * len(self._turns), MOST_PLACES)
        self._noise_keys = jax.device_put(noise_keys[self._turns], _split_over(self._mesh, "seed"))
        self._data = placed(seeds.data, _split_over(self._mesh))

    def first_run(self) -> Run:
        """The run before the first step."""
        start = self._seeds.params, self._seeds.opt_state
        by_turn = jax.tree.map(lambda leaf: leaf[self._turns], start)
        params, opt_state = jax.device_put(by_turn, _split_over(self._mesh, "seed"))
        nothing = np.zeros((0, self.num_seeds), np.float32)
        names: list[str] = ["bound", "objective", "gradient_norm"]
        return Run(params, opt_state, 0, dict.fromkeys(names, nothing))

    def stacked(self, run: Run) -> Run:
        """The run with a leading axis of the seeds, each once, in its history too."""
        params, opt_state = jax.tree.map(
            lambda leaf: leaf[: self.num_seeds], (run.params, run.opt_state)
        )
        history = {name: values.T for name, values in run.history.items()}
        return Run(params, opt_state, run.step, history)

    def steps_from(self, step: int) -> int:
        return self._length

    def check(self, params: Params, opt_state: PyTree) -> None:
        shape = len(self._turns), self._length, self._seeds.trainer.batch_size
        turns = Turn(params, opt_state, np.zeros(shape, np.int32), self._noise_keys)
        with under_mesh(self._mesh):
            _steps_of_seeds.eval_shape(*self._program, turns, Shared(self._data, 0, 1))

    def begin(self, params: Params, opt_state: PyTree, start: int, count: int) -> Call:
        by_turn = [order.rows(start, start + count) for order in self._orders]
        places = np.stack([padded(rows, self._length) for rows in by_turn])
        turns = Turn(params, opt_state, places, self._noise_keys)
        with under_mesh(self._mesh):
            results = _steps_of_seeds(*self._program, turns, Shared(self._data, start, count))
        return Call(start, start + count, Examples(self._data, places), *results)

    def complete(self, run: Run, call: Call) -> Run:
        count, num_seeds = call.end - call.start, self.num_seeds
        record = jax.tree.map(lambda values: np.asarray(values)[:num_seeds, :count].T, call.record)
        _require_finite(run, record, call.opt_state, np.asarray(call.finite)[:num_seeds])
        return Run(call.params, call.opt_state, call.end, recorded(run.history, record))


def _mesh_for(way: SeedWay, num_seeds: int) -> Mesh | None:
    """The devices that share the seeds, where they do."""
    return Mesh(np.array(jax.local_devices()[:num_seeds]), "seed") if way == "cores" else None


def _split_over(mesh: Mesh | None, *axes: str) -> NamedSharding | None:
    """The place of arrays that are split over these axes of a mesh, or whole on each device."""
    return None if mesh is None else NamedSharding(mesh, PartitionSpec(*axes))


@partial(jax.jit, static_argnames=("trainer", "way", "mesh"))
def _steps_of_seeds(trainer: Trainer, way: SeedWay, mesh: Mesh | None, turns: Turn, shared: Shared):
    """`run_steps` of every turn, stacked."""

    def single(shared: Shared, turn: Turn):
        state = turn.params, turn.opt_state
        examples = shared.data, turn.places
        return run_steps(trainer, *state, *examples, turn.noise_key, shared.start, shared.num_steps)

    def in_turn(shared: Shared, turns: Turn):
        return jax.lax.map(partial(single, shared), turns)

    if way == "vmap":
        return jax.vmap(partial(single, shared))(turns)
    if way == "map":
        return in_turn(shared, turns)
    on_devices = jax.shard_map(
        in_turn,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("seed")),
        out_specs=PartitionSpec("seed"),
        check_vma=False,
    )
    return on_devices(shared, turns)


def _require_finite(run: Run, record: Record, opt_state: PyTree, finite: np.ndarray) -> None:
    """Raises NonFiniteError that names the first seed at fault after `run`."""
    broken = ~finite
    if not are_acceptable(record, opt_state):
        numbers = np.stack([record.bound, record.objective])
        broken |= ~np.isfinite(numbers).all(axis=(0, 1))
    if broken.any():
        last = run.step + len(record.bound) - 1
        raise NonFiniteError(
            f"seed {int(broken.argmax())}: not finite within steps {run.step}..{last};"
            " `fit` with the key of this seed names the leaf",
            run,
        )

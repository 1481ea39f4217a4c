"""The compiled steps."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vaejax.base.asserts import assert_shape
from vaejax.base.types import Key, Params, PyTree, Terms
from vaejax.base.values import component
from vaejax.objectives.base import Objective, terms_of
from vaejax.training.optimizers import ByStructure


@component
class Trainer:
    """The training step, and all that it is compiled for."""

    objective: Objective
    optimizer: ByStructure
    transform: Callable[[PyTree, Key], PyTree] | None
    mesh: Mesh | None
    batch_size: int

    def terms(
        self, params: Params, data: PyTree, rows: jax.Array, noise_key: Key, step: jax.Array
    ) -> Terms:
        """The objective at one step, of the examples data[rows]."""
        assert_shape(rows, (self.batch_size,))
        transform_key, objective_key = jax.random.split(jax.random.fold_in(noise_key, step))
        xs = jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=0), data)
        if self.transform is not None:
            xs = jax.vmap(self.transform)(xs, jax.random.split(transform_key, self.batch_size))
        if self.mesh is not None:
            xs = jax.lax.with_sharding_constraint(
                xs, NamedSharding(self.mesh, PartitionSpec("data"))
            )
        return terms_of(self.objective, params, xs, objective_key, step)

    def terms_and_gradient(self, params: Params, *args) -> tuple[Terms, Params]:
        """The objective at one step, and the gradient of what it maximises."""

        def maximised(params):
            terms = self.terms(params, *args)
            return terms.objective, terms

        (_, terms), gradient = jax.value_and_grad(maximised, has_aux=True)(params)
        return terms, gradient


@partial(jax.jit, static_argnames="trainer", donate_argnames=("params", "opt_state"))
def run_steps(trainer: Trainer, params, opt_state, data, rows, noise_key, start, count):
    """`count` steps from step `start`, step i on the examples data[rows[i]]: new parameters, new
    optimiser state, the terms of each step, and whether all parameters are finite.

    `rows` has a row for as many steps as any call has, so `count` is no part of the program.
    """
    num_rows = rows.shape[0]

    def step(i, carry):
        params, opt_state, history = carry
        terms, gradient = trainer.terms_and_gradient(params, data, rows[i], noise_key, start + i)
        # Optax minimises: this is the one minus sign.
        updates, opt_state = trainer.optimizer.update(
            jax.tree.map(jnp.negative, gradient), opt_state, params
        )
        history = jax.tree.map(
            lambda values, value: values.at[i].set(value.astype(values.dtype)), history, terms
        )
        return optax.apply_updates(params, updates), opt_state, history

    start_of_history = Terms(jnp.zeros(num_rows), jnp.zeros(num_rows))
    carry = jax.lax.fori_loop(0, count, step, (params, opt_state, start_of_history))
    finite = jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), carry[0])
    return *carry, jax.tree.reduce(jnp.logical_and, finite, True)


@partial(jax.jit, static_argnames="trainer")
def terms_and_gradient(trainer: Trainer, *args):
    """`Trainer.terms_and_gradient`, compiled."""
    return trainer.terms_and_gradient(*args)

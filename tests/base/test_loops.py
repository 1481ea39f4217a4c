"""A loop in blocks is the loop: the same turns in their order, in one program for every length."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from tests.lib.programs import trip_counts
from vaejax.base.loops import repeat

LENGTHS = range(14)


def told(i, carry):
    """Turn i writes down that it came, and after how many others."""
    number, seen = carry
    return number + 1, seen.at[i].set(number)


def run(count, block):
    return repeat(count, told, (0, jnp.full(len(LENGTHS), -1)), block)


@pytest.mark.parametrize("block", [1, 4, 5])
def test_every_turn_comes_once_and_in_its_order(block):
    looped = jax.jit(partial(run, block=block))
    for count in LENGTHS:
        number, seen = looped(count)
        assert number == count
        assert seen.tolist() == [*range(count), *[-1] * (len(LENGTHS) - count)]
    assert looped._cache_size() == 1


def test_the_compiler_knows_the_length_of_a_block():
    """And not that of the loop around it, nor that of the rest."""
    in_blocks = jax.jit(run, static_argnames="block").lower(9, 4).compile()
    assert sorted(trip_counts(in_blocks.as_text()), key=str) == [4, None, None]
    at_once = jax.jit(run, static_argnames="block").lower(9, 1).compile()
    assert trip_counts(at_once.as_text()) == [None]

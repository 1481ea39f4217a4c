"""The compiled loop: the same bits in blocks and at once, and a device that is asked once a
block.
"""

from functools import partial

import jax
import numpy as np
import optax
import pytest

from tests.lib.programs import host_transfers, trip_counts
from tests.lib.training import KEY, OBJECTIVE, PARAMS, PIXELS, XS, state
from tests.lib.trees import assert_same_bits
from vaejax.training.calls import advance
from vaejax.training.feeds import Order, Resident
from vaejax.training.optimizers import ByStructure, started, watched
from vaejax.training.run import NO_HISTORY, Run
from vaejax.training.trainer import Trainer, run_steps

OPTIMIZER = ByStructure(optax.adamw(optax.cosine_decay_schedule(1e-2, 20)))
OPT_STATE = started(OPTIMIZER, PARAMS)
TRAINER = partial(Trainer, OBJECTIVE, OPTIMIZER, PIXELS, None, 32, watched(OPT_STATE))
ORDER_KEY, NOISE_KEY, _ = jax.random.split(KEY, 3)
FEED = Resident(XS, Order(ORDER_KEY, len(XS), 32), None)


def trained(trainer, ends):
    """The run in calls that end at these steps."""
    run = Run(PARAMS, OPT_STATE, 0, NO_HISTORY)
    for end in ends:
        run = advance(trainer, run, FEED, NOISE_KEY, end - run.step)
    return run


CUTS = {
    "at once": [20],
    "one by one": range(1, 21),
    "within a block": [1, 3, 4, 6, 7, 20],
    "across blocks": [3, 9, 20],
    "by blocks": [4, 8, 12, 16, 20],
    "off by one": [5, 10, 15, 20],
}


@pytest.mark.parametrize("cut", CUTS)
def test_the_same_bits_wherever_blocks_are_cut(cut):
    """And the bits of a loop that has none."""
    in_blocks, at_once = trained(TRAINER(block=4), CUTS[cut]), trained(TRAINER(block=1), [20])
    assert_same_bits(state(in_blocks), state(at_once))


def test_every_cut_has_one_program():
    run_steps.clear_cache()
    for ends in CUTS.values():
        trained(TRAINER(block=4), ends)
    assert run_steps._cache_size() == 1


def program(block):
    """The optimised program of the steps."""
    rows = np.zeros((1_000, 32), np.int32)
    args = PARAMS, OPT_STATE, XS, rows, NOISE_KEY, 0, 5
    return run_steps.lower(TRAINER(block=block), *args).compile().as_text()


def test_a_device_is_asked_once_a_block():
    """By the program: the compiler knows the length of a block, and nothing in it goes to the
    host. Of the loops within a step, as those of the random numbers, all have a known length.
    """
    at_once, in_blocks = trip_counts(program(1)), trip_counts(program(32))
    assert at_once.count(None) == 1  # the loop over all steps
    assert in_blocks.count(None) == 2  # those over blocks, and over what is left
    assert in_blocks.count(32) == at_once.count(32) + 1
    assert not host_transfers(program(32))

"""The compiled loop: the same bits in blocks and at once, and a device that is asked once a
block.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.lib.programs import host_transfers, trip_counts
from tests.lib.training import KEY, OBJECTIVE, PARAMS, PIXELS, XS, advance, state
from tests.lib.trees import assert_same_bits
from vaejax.training.calls import Call, Calls, CallsOfFit
from vaejax.training.feeds import Order, Resident
from vaejax.training.optimizers import ByStructure, started, watched
from vaejax.training.run import NO_HISTORY, Run
from vaejax.training.trainer import Trainer, norm_of, run_steps

OPTIMIZER = ByStructure(optax.adamw(optax.cosine_decay_schedule(1e-2, 20)))
OPT_STATE = started(OPTIMIZER, PARAMS)
TRAINER = partial(Trainer, OBJECTIVE, OPTIMIZER, PIXELS, None, 32, watched(OPT_STATE))
ORDER_KEY, NOISE_KEY, _ = jax.random.split(KEY, 3)
FEED = Resident(XS, Order(ORDER_KEY, len(XS), 32), None)


def trained(trainer, ends):
    """The run in calls that end at these steps."""
    run = Run(PARAMS, OPT_STATE, 0, NO_HISTORY)
    for end in ends:
        run = advance(CallsOfFit(trainer, FEED, NOISE_KEY), run, end - run.step)
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


@pytest.mark.parametrize("is_split, num_sums", [(False, 1), (True, 3)])
def test_an_accelerator_sums_a_gradient_in_one_row(is_split, num_sums):
    """By its program, unless leaves are split over devices; on a CPU the norm is the same."""
    gradient = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(3), "c": jnp.zeros((1, 1))}
    norm = jax.jit(partial(norm_of, is_split=is_split))
    text = norm.trace(gradient).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("stablehlo.reduce(") == num_sums
    np.testing.assert_allclose(norm(gradient), np.sqrt(55 + 3), rtol=1e-6)


class Noted(Calls):
    """Calls of at most 4 steps, of which it is noted when each is begun and completed; the steps
    from `torn` on cannot be begun.
    """

    def __init__(self, torn=100):
        super().__init__()
        self.events, self.torn = [], torn

    def steps_from(self, step):
        return 4

    def begin(self, params, opt_state, start, count):
        if start + count > self.torn:
            raise OSError(f"at {start}")
        self.events.append(("begin", start))
        return Call(start, start + count, None, params + 1, opt_state, None, True)

    def complete(self, run, call):
        self.events.append(("complete", call.start))
        return run._replace(params=call.params, step=call.end)


def start():
    return Run(0, (), 0, NO_HISTORY)


def test_the_next_call_is_begun_before_this_one_is_read():
    """And none across a step at which something is due. At first each has one step, as long as
    nobody knows how long one takes.
    """
    calls, run = Noted(), start()
    for due in (3, 3, 3, 20, 20):
        run = calls.advance(run, due)
    steps = [event for event in calls.events if event[1] < 3]
    assert steps == [
        ("begin", 0),
        ("begin", 1),
        ("complete", 0),
        ("begin", 2),
        ("complete", 1),
        ("complete", 2),
    ]
    assert calls.events[6:] == [
        ("begin", 3),
        ("begin", 7),
        ("complete", 3),
        ("begin", 11),
        ("complete", 7),
    ]
    assert run.step == 11 and run.params == 5


def test_what_cannot_be_begun_is_said_in_its_turn():
    """With the run up to there."""
    calls, run = Noted(torn=9), start()
    while run.step < 1:
        run = calls.advance(run, 20)
    with pytest.raises(OSError, match="at") as error:
        while True:
            run = calls.advance(run, 20)
    assert str(error.value) == f"at {run.step}" and run.step > 1

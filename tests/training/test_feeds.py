"""How the examples come to the device changes no bit."""

import jax
import numpy as np
import optax
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.programs import compilations
from tests.lib.training import (
    KEY,
    OBJECTIVE,
    PARAMS,
    PIXELS,
    XS,
    Counted,
    checkpointed,
    digest,
    fit,
    state,
)
from tests.lib.trees import assert_same_bits
from vaejax.training.calls import advance
from vaejax.training.feeds import Resident, Streamed
from vaejax.training.optimizers import ByStructure, watched
from vaejax.training.run import NO_HISTORY, Run
from vaejax.training.trainer import Trainer

SOURCES = {
    "a user's": lambda folder: Counted(XS),
    "arrays": lambda folder: vaejax.Arrays(XS),
    "arrays on disk": lambda folder: vaejax.Arrays(on_disk(folder)),
    "items by number": lambda folder: vaejax.RandomAccess(list(XS)),
    "parts of items": lambda folder: vaejax.RandomAccess(
        [{"image": x, "name": "a digit"} for x in XS], lambda item: item["image"]
    ),
}


def on_disk(folder):
    stored = np.memmap(folder / "xs", XS.dtype, "w+", shape=XS.shape)
    stored[:] = XS
    return stored


@pytest.mark.parametrize("source_in", cases(SOURCES))
def test_a_source_gives_the_same_bits_as_arrays(tmp_path, source_in):
    """20 steps of 100 pass the end of an epoch."""
    assert_same_bits(state(fit(20, 100, data=source_in(tmp_path))), state(fit(20, 100)))


def test_of_several_arrays():
    """An example may be any pytree."""
    transform = jax.tree_util.Partial(lambda stored, key: PIXELS(stored["image"], key))
    items = [{"image": x, "label": np.int64(i)} for i, x in enumerate(XS)]
    runs = [
        fit(20, data=data, transform=lambda stored, key: transform(stored, key))
        for data in ({"image": XS, "label": np.arange(len(XS))}, vaejax.RandomAccess(items))
    ]
    assert_same_bits(state(runs[0]), state(runs[1]))


def test_resumed_from_a_source_to_the_same_bits(tmp_path):
    """Also where the run began with arrays, and the other way round."""
    whole = digest(checkpointed(None))
    for name, first, second in (
        ("source", Counted(XS), Counted(XS)),
        ("arrays, then source", XS, Counted(XS)),
        ("source, then arrays", Counted(XS), XS),
    ):
        checkpointed(tmp_path / name, 9, data=first)
        resumed = checkpointed(tmp_path / name, 20, resume=True, data=second)
        assert digest(resumed) == whole, name


def test_a_source_compiles_once():
    fit(12, data=Counted(XS))
    other_key = jax.random.key(5)
    with compilations() as names:
        fit(17, data=Counted(XS), key=other_key)
    assert names == []


@pytest.mark.parametrize("call_bytes, most_steps", [(1, 1), (5 * 32 * 64, 5), (10**9, 1000)])
def test_the_examples_of_a_call_are_bounded(call_bytes, most_steps):
    """At least a batch, at most so many bytes; the bits are the same."""
    opt_state = optax.adam(1e-3).init(PARAMS)
    optimizer = ByStructure(optax.adam(1e-3))
    trainer = Trainer(OBJECTIVE, optimizer, PIXELS, None, 32, watched(opt_state))
    order_key, noise_key, _ = jax.random.split(KEY, 3)
    source = Counted(XS)
    streamed = Streamed(source, 32, None, call_bytes)
    assert streamed.most_steps == most_steps
    runs = []
    for feed in (Resident(XS, None), streamed):
        run = Run(PARAMS, opt_state, 0, NO_HISTORY)
        while run.step < 10:
            count = min(most_steps, 10 - run.step)
            run = advance(trainer, run, feed, order_key, noise_key, count)
        runs.append(run)
    assert_same_bits(state(runs[0]), state(runs[1]))
    assert max(source.asked) == min(most_steps, 10) * 32

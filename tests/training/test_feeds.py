"""How the examples come to the device changes no bit."""

import subprocess
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import optax
import PIL.Image
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
    advance,
    checkpointed,
    digest,
    fit,
    state,
)
from tests.lib.trees import assert_same_bits
from vaejax.training import feeds
from vaejax.training.calls import CallsOfFit
from vaejax.training.feeds import Order, Resident, Streamed
from vaejax.training.optimizers import ByStructure, watched
from vaejax.training.run import NO_HISTORY, Run
from vaejax.training.trainer import Trainer

SOURCES = {
    "mapped into memory": lambda folder: on_disk(folder),
    "an open npz": lambda folder: open_npz(folder),
    "images in files": lambda folder: images_in(folder),
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


def open_npz(folder):
    np.savez(folder / "xs.npz", x=XS)
    return vaejax.open_npz(folder / "xs.npz")["x"]


def images_in(folder):
    for i, x in enumerate(XS):
        PIL.Image.fromarray(x).save(folder / f"{i:05}.png")
    return vaejax.ImageFolder(folder)


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


@pytest.mark.parametrize("stretch_bytes, length", [(1, 1), (5 * 32 * 64, 5), (10**9, 10_000)])
@pytest.mark.parametrize("reads_ahead", [True, False])
def test_what_is_read_is_bounded(stretch_bytes, length, reads_ahead):
    """At least a batch, at most so many bytes, and nothing beyond the last step; the bits are the
    same.
    """
    opt_state = optax.adam(1e-3).init(PARAMS)
    optimizer = ByStructure(optax.adam(1e-3))
    trainer = Trainer(OBJECTIVE, optimizer, PIXELS, None, 32, watched(opt_state))
    order_key, noise_key, _ = jax.random.split(KEY, 3)
    source = Counted(XS)
    source.reads_ahead = reads_ahead
    order = Order(order_key, len(XS), 32)
    streamed = Streamed(source, order, 10, None, stretch_bytes)
    assert [streamed.steps_from(step) for step in (0, length - 1, length)] == [length, 1, length]
    runs = []
    for feed in (Resident(XS, order, None), streamed):
        run = Run(PARAMS, opt_state, 0, NO_HISTORY)
        while run.step < 10:
            count = min(3, 10 - run.step, feed.steps_from(run.step))
            run = advance(CallsOfFit(trainer, feed, noise_key), run, count)
        runs.append(run)
        feed.close()
    assert_same_bits(state(runs[0]), state(runs[1]))
    first, *asked = source.asked
    assert first == 1 and sum(asked) == 10 * 32 and max(asked) == min(length, 10) * 32


class Slow(Counted):
    """Its reader waits until told that the steps before are computed; it notes the thread."""

    def __init__(self, array):
        super().__init__(array)
        self.threads = []

    def __getitem__(self, rows):
        self.threads.append(threading.current_thread())
        return super().__getitem__(rows)


def test_the_next_stretch_is_read_in_a_thread_while_this_one_is_in_use():
    source = Slow(XS)
    order = Order(jax.random.key(2), len(XS), 32)
    streamed = Streamed(source, order, 20, None, 5 * 32 * 64)
    streamed.examples(0, 3)
    streamed.examples(3, 2)
    streamed._stretches[1]()  # waits until it is read
    streamed.close()
    main = threading.main_thread()
    assert len(source.asked) == 3 and [thread is main for thread in source.threads] == [1, 0, 0]


def test_a_source_of_one_thread_is_read_by_the_thread_that_trains():
    source = Slow(XS)
    source.reads_ahead = False
    assert_same_bits(state(fit(data=source)), state(fit()))
    assert set(source.threads) == {threading.current_thread()}


def test_what_goes_wrong_with_reading_ahead_loses_no_step(monkeypatch):
    """It is raised where those rows are needed, with the run up to there."""

    class Broken(vaejax.Source):
        def __len__(self):
            return len(XS)

        def __getitem__(self, rows):
            if len(rows) > 1 and len(rows) < 32 * 5:  # the last stretch
                raise OSError("the disk is gone")
            return XS[rows]

    monkeypatch.setattr(feeds, "STRETCH_BYTES", 5 * 32 * 64)
    with pytest.raises(OSError, match="disk") as error:
        fit(12, data=Broken())
    assert error.value.run.step == 10


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own numbers")
def test_data_of_twenty_times_the_memory_limit(tmp_path):
    """5 GiB, of which the file system stores nothing, by a process that may take 256 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    assert int(done.stdout) == 2_000


BOUNDED = """
import pathlib, re, resource, sys
import jax, numpy as np, optax, vaejax

LIMIT = 256 * 2**20
size = 20 * LIMIT // 784
xs = np.memmap(f"{sys.argv[1]}/xs", np.uint8, "w+", shape=(size, 28, 28))
model = vaejax.VAE(
    vaejax.StandardNormal(2),
    vaejax.Bernoulli(vaejax.MLP((28, 28), (8,))),
    vaejax.DiagNormal(vaejax.MLP(2, (8,), heads=2)),
)
params = model.init(jax.random.key(0), np.zeros((28, 28)))
objective = vaejax.minibatch(vaejax.Pathwise(), model)

def train(data, num_steps):
    return vaejax.fit(
        objective, params, optax.adam(1e-3), data, jax.random.key(1),
        num_steps=num_steps, batch_size=100, transform=vaejax.Pixels(255), progress=False,
    )

train(xs[:1_000], 2)  # the compiler's own memory is not meant
used = re.search(r"VmData:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())
limit = int(used.group(1)) * 1024 + LIMIT
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
print(train(xs, 2_000).step)
"""

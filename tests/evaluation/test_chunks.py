"""A function over a data set, a chunk at a time: it goes on after a cut, in memory that does not
grow.
"""

from dataclasses import replace
from functools import partial
from unittest import mock

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

import vaejax
from tests.lib.evaluated import binary_model
from vaejax.base.mapping import map_rows
from vaejax.data import shares
from vaejax.data.mapping import map_dataset
from vaejax.data.shares import MappedSource
from vaejax.evaluation import chunks


def test_evaluation_goes_on_where_it_was_cut_off(tmp_path):
    """After a kill at the third batch of five, the call does the other batches alone, and gives the
    same bits as without a cut.
    """
    model, params, xs = binary_model()
    call = partial(
        vaejax.evaluate, model, params, key=jax.random.key(0), num_samples=30, batch_size=5
    )
    path = tmp_path / "evaluation.jsonl"
    batches = []

    def count(*args, **settings):
        batches.append(args)
        if len(batches) == 3:
            raise KeyboardInterrupt
        return map_rows(*args, **settings)

    with mock.patch.object(shares, "map_rows", count):
        with pytest.raises(KeyboardInterrupt):
            call(xs=xs, path=path)
        resumed = call(xs=xs, path=path)
        assert len(batches) == 3 + 3
        again = call(xs=xs, path=path)
        assert len(batches) == 6
    whole = call(xs=xs)
    for name, array in whole.by_example.items():
        np.testing.assert_array_equal(resumed.by_example[name], array)
        np.testing.assert_array_equal(again.by_example[name], array)
    with pytest.raises(ValueError, match=r"evaluation.jsonl holds the evaluation of another model"):
        call(xs=1 - xs, path=path)
    assert [file.name for file in tmp_path.iterdir()] == ["evaluation.jsonl"]


def draw(params, x, key):
    """A number that depends on the example and on its key."""
    return x[0] + jax.random.uniform(key)


def kept(part):
    return {"draw": part}


def test_chunks_are_the_whole_in_pieces(tmp_path):
    """Seven examples by three: each once, in order, with the key that it has in one piece; and a
    file belongs to one key.
    """
    xs, key = 10 * np.arange(7.0, dtype=np.float32)[:, None], jax.random.key(1)
    mapped = MappedSource(draw, None, vaejax.Arrays(xs), key)
    whole = map_dataset(draw, None, xs, key)
    path = tmp_path / "draws.jsonl"
    for size in (1, 3, 7, 50):
        pieces = chunks.map_in_chunks(mapped, kept, batch_size=size)
        np.testing.assert_array_equal(pieces["draw"], whole)
    chunks.map_in_chunks(mapped, kept, batch_size=3, path=path)
    another = {
        "key": jax.random.key(2),
        "source": vaejax.Arrays(xs + 1),
        "params": np.ones(1),
    }
    for name, part in another.items():
        with pytest.raises(ValueError, match="another model, data set, key or setting"):
            chunks.map_in_chunks(replace(mapped, **{name: part}), kept, batch_size=3, path=path)


@pytest.mark.parametrize("num_devices", [1, 3, 8])
def test_a_mesh_shares_the_chunks(num_devices, tmp_path):
    """To the same bits, and those alone that are not in the file."""
    xs, key = np.arange(29.0, dtype=np.float32)[:, None], jax.random.key(1)
    path = tmp_path / "draws.jsonl"
    mapped = MappedSource(draw, None, vaejax.Arrays(xs), key)
    call = partial(chunks.map_in_chunks, mapped, kept, batch_size=3, path=path)
    whole = call()["draw"]
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], *lines[5:-1]]))
    mesh = Mesh(np.array(jax.devices()[:num_devices]), "data")
    np.testing.assert_array_equal(call(mesh=mesh)["draw"], whole)
    assert sorted(path.read_text().splitlines()) == sorted("".join(lines).splitlines())
    np.testing.assert_array_equal(call(mesh=mesh, path=None)["draw"], whole)


def test_a_larger_set_needs_no_more_memory():
    """The program that a data set runs through is that of one batch: 10,000 examples at K = 5,000
    are 100 times the same.
    """
    model, params, xs = binary_model()
    compiled = []
    real = jax.jit(map_rows, static_argnames=("function", "batch_size"))

    def record(function, params, xs, key, batch_size, start):
        analysis = (
            real.lower(function, params, xs, key, batch_size, start).compile().memory_analysis()
        )
        compiled.append(
            analysis.temp_size_in_bytes
            + analysis.argument_size_in_bytes
            + analysis.output_size_in_bytes
        )
        return map_rows(function, params, xs, key, batch_size, start)

    with mock.patch.object(shares, "map_rows", record):
        vaejax.evaluate(
            model, params, np.tile(xs, (2, 1, 1)), jax.random.key(0), num_samples=50, batch_size=10
        )
    assert len(compiled) == 5 and len(set(compiled)) == 1


def test_what_arrays_have_begun_a_source_of_them_goes_on_with(tmp_path):
    """The file belongs to the contents of the data, however they are read."""
    model, params, xs = binary_model()
    path = tmp_path / "evaluation.jsonl"
    call = partial(vaejax.evaluate, model, params, key=jax.random.key(0), num_samples=5, path=path)
    whole = call(xs=xs)
    with mock.patch.object(shares, "map_rows", side_effect=AssertionError):
        again = call(xs=vaejax.RandomAccess(list(xs)))
    np.testing.assert_array_equal(again.by_example["elbo"], whole.by_example["elbo"])


def test_a_file_goes_on_with_another_chunk(tmp_path):
    """Which changes rounding alone, so what is there is not computed again."""
    model, params, xs = binary_model()
    path = tmp_path / "evaluation.jsonl"
    call = partial(vaejax.evaluate, model, params, key=jax.random.key(0), num_samples=6)
    whole = call(xs=xs, chunk=6, batch_size=10, path=path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]))
    resumed = call(xs=xs, chunk=2, batch_size=7, path=path)
    first, second = (run.by_example["elbo"] for run in (whole, resumed))
    np.testing.assert_array_equal(first[:10], second[:10])
    np.testing.assert_allclose(first, second, rtol=1e-5)
    with mock.patch.object(shares, "map_rows", side_effect=AssertionError):
        call(xs=xs, chunk=4, batch_size=10, path=path)

"""Sources give rows, blocks, digests and maps as the arrays with their contents."""

import hashlib

import jax
import numpy as np
import pytest

import vaejax
from tests.lib.trees import assert_same_bits
from vaejax.data.mapping import map_dataset, map_source
from vaejax.data.sources import (
    BLOCK_BYTES,
    add_to_digest,
    as_source,
    block_size,
    blocks,
    first_example,
    read,
)

XS = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
DATA = {"x": XS, "label": np.arange(30)}
ITEMS = [{"x": XS[i], "label": i} for i in range(30)]
ROWS = np.array([4, 0, 29, 4])
SOURCES = {
    "arrays": vaejax.Arrays(DATA),
    "items": vaejax.RandomAccess(ITEMS),
    "parts of items": vaejax.RandomAccess(
        [(item, "noted") for item in ITEMS], lambda item: item[0]
    ),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_rows_and_blocks(source):
    assert len(source) == 30
    assert_same_bits(read(source, ROWS), {"x": XS[ROWS], "label": ROWS})
    starts, parts = zip(*blocks(source, 7), strict=True)
    assert starts == (0, 7, 14, 21, 28) and len(parts[-1]["x"]) == 2
    assert_same_bits(jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts), DATA)
    assert first_example(source)["x"].shape == (1, 3)
    assert block_size(source) == BLOCK_BYTES // (12 + 8)


def test_a_source_is_itself_and_arrays_become_one():
    source = SOURCES["items"]
    assert as_source(source) is source
    assert len(as_source(DATA)) == 30
    with pytest.raises(ValueError, match="xs is empty"):
        as_source(XS[:0], "xs")


def test_arrays_are_not_copied():
    assert np.shares_memory(vaejax.Arrays(XS).block(3, 9), XS)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_the_digest_is_of_the_contents(source):
    expected = hashlib.sha256()
    for leaf in (DATA["label"], XS):  # as jax orders the names
        expected.update(f"{leaf.shape} {leaf.dtype}".encode() + leaf.tobytes())
    digest = hashlib.sha256()
    add_to_digest(digest, source)
    assert digest.hexdigest() == expected.hexdigest()


def start_and_noise(params, x, key):
    return x[0] + jax.random.normal(key)


def test_a_map_over_blocks_is_that_over_the_arrays():
    """Three blocks, the last one smaller: example i has its own key, whichever block it is in."""
    xs = np.zeros((10, BLOCK_BYTES // 16), np.float32) + np.arange(10, dtype=np.float32)[:, None]
    assert block_size(vaejax.Arrays(xs)) == 4
    params, key = vaejax.Params((), ()), jax.random.key(0)
    results = map_source(start_and_noise, params, vaejax.Arrays(xs), key, batch_size=2)
    expected = map_dataset(start_and_noise, params, xs, key, 2)
    np.testing.assert_allclose(results, expected, rtol=1e-6)

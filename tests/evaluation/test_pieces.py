"""What is taken from a file is what was computed: whatever happened to it, the result is the same
bits, the loss is said, and no more than that is computed again.
"""

import dataclasses
import json
import warnings
from unittest import mock

import jax
import numpy as np
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.evaluated import binary_model
from vaejax.base.compare import differences
from vaejax.base.mapping import map_rows
from vaejax.data import shares
from vaejax.data.shares import MappedSource
from vaejax.evaluation import chunks
from vaejax.evaluation.evaluate import Summary, WeightsAndMean
from vaejax.evaluation.pieces import Pieces

XS, KEY = np.arange(12.0, dtype=np.float32)[:, None], jax.random.key(1)


def draw(params, x, key):
    return x[0] + params * jax.random.uniform(key)


def kept(part):
    return {"draw": part, "double": 2.0 * part.astype(np.float64)}


def mapped(path, params=1.0, xs=XS, key=KEY, function=draw, size=2):
    """(the result, how many chunks were computed, what was said)."""
    computed = []

    def counted(*arguments, **settings):
        computed.append(arguments)
        return map_rows(*arguments, **settings)

    with (
        mock.patch.object(shares, "map_rows", counted),
        warnings.catch_warnings(record=True) as said,
    ):
        warnings.simplefilter("always")
        source = MappedSource(function, params, vaejax.Arrays(xs), key)
        summaries = chunks.map_in_chunks(source, kept, batch_size=size, path=path)
    return summaries, len(computed), [str(warning.message) for warning in said]


@pytest.fixture
def file(tmp_path):
    """Six pieces of two examples."""
    path = tmp_path / "draws.jsonl"
    assert mapped(path)[1:] == (6, [])
    return path


WHOLE = mapped(None)[0]


def assert_whole(summaries):
    assert summaries.keys() == WHOLE.keys()
    for name, values in WHOLE.items():
        np.testing.assert_array_equal(summaries[name], values)
        assert summaries[name].dtype == values.dtype


def test_what_is_there_is_not_computed_again(file):
    before = file.stat().st_mtime_ns
    summaries, computed, said = mapped(file)
    assert_whole(summaries)
    assert computed == 0 and said == [] and file.stat().st_mtime_ns == before
    summaries, computed, said = mapped(file, size=5)  # of another size, too
    assert_whole(summaries)
    assert computed == 0 and said == []


def test_a_missing_piece_ends_where_the_next_begins(file):
    """With larger chunks, too: nothing that is there is computed again, or stands twice."""
    first, *pieces = file.read_text().splitlines(keepends=True)
    file.write_text("".join([first, pieces[0], *pieces[2:]]))
    summaries, computed, _ = mapped(file, size=5)
    assert_whole(summaries)
    added = Pieces(file, json.loads(first)["of"]).arrays[2]
    assert computed == 1 and len(added["draw"]) == 2


def test_every_byte_counts(file):
    """A bit anywhere: what was in its line is computed again, and is said."""
    whole = file.read_bytes()
    for place in range(3, len(whole), 97):
        changed = bytearray(whole)
        changed[place] ^= 0x10 if place % 2 else 0x01
        file.write_bytes(changed)
        summaries, computed, said = mapped(file)
        assert_whole(summaries)
        assert computed <= 2 and len(said) == 1 and "computed again" in said[0], place
        assert mapped(file)[1:] == (0, [])


def test_every_cut_goes_on(file):
    whole = file.read_bytes()
    for place in range(0, len(whole), 97):
        file.write_bytes(whole[:place])
        summaries, computed, said = mapped(file)
        assert_whole(summaries)
        pieces = max(0, whole[:place].count(b"\n") - 1)
        assert computed == 6 - pieces and len(said) == 1, place
        assert mapped(file)[1:] == (0, [])


def lines_of(other):
    return lambda lines, folder: [lines[0], *other(lines[1:], folder)]


def of_another(lines, folder):
    """The second piece of the same with another key."""
    mapped(folder / "other.jsonl", key=jax.random.key(9))
    other = (folder / "other.jsonl").read_text().splitlines(keepends=True)
    return [lines[0], other[2], *lines[2:]]


def renumbered(lines, folder):
    record = json.loads(lines[1])
    return [lines[0], json.dumps(record | {"start": 6}) + "\n", *lines[2:]]


# {what happened to the lines: (what it does, how many are computed again)}
CHANGES = {
    "a line is gone": (lines_of(lambda lines, _: lines[:2] + lines[3:]), 1),
    "one stands twice": (lines_of(lambda lines, _: [*lines, lines[2]]), 0),
    "one of another": (lines_of(of_another), 1),
    "under another number": (lines_of(renumbered), 1),
    "in another order": (lines_of(lambda lines, _: lines[::-1]), 0),
    "no header": (lambda lines, _: lines[1:], 1),
    "words between": (lines_of(lambda lines, _: [*lines[:3], "a note\n", *lines[3:]]), 0),
    "no last newline": (lambda lines, _: [*lines[:-1], lines[-1].strip()], 0),
}


@pytest.mark.parametrize("case", cases(CHANGES))
def test_what_happens_to_lines(file, case):
    change, again = case
    file.write_text("".join(change(file.read_text().splitlines(keepends=True), file.parent)))
    summaries, computed, said = mapped(file)
    assert_whole(summaries)
    assert computed == again and len(said) <= 1
    assert mapped(file)[1:] == (0, [])


OTHERS = {
    "params": ({"params": 2.0}, "params: saved 1.0, now 2.0"),
    "data": ({"xs": XS + 1}, "data: saved "),
    "key": ({"key": jax.random.key(2)}, r"key.words: saved \[0, 1\], now \[0, 2\]"),
    "function": ({"function": lambda params, x, key: x[0]}, "function: saved .*draw, now .*lambda"),
}


@pytest.mark.parametrize("case", cases(OTHERS))
def test_a_file_of_other_arguments_is_refused_and_stays(file, case):
    change, message = case
    before = file.read_bytes()
    with pytest.raises(ValueError, match=f"of another model, data set, key or setting: {message}"):
        mapped(file, **change)
    assert file.read_bytes() == before


@pytest.mark.parametrize("content", [b"my,own,table\n1,2,3\n", b"PK\x03\x04 an archive", b"{}\n"])
def test_a_file_of_something_else_is_not_written_over(tmp_path, content):
    path = tmp_path / "mine"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="mine is not a file of an evaluation, so it is not"):
        mapped(path)
    assert path.read_bytes() == content


def test_an_evaluation_is_of_its_model_and_settings():
    """Two that differ in a field of the model, or in a setting, are told apart by its path."""
    model, params, xs = binary_model()
    other = dataclasses.replace(model, prior=vaejax.VampPrior(3))
    source = vaejax.Arrays(xs)
    parts = [
        chunks.made_of(
            MappedSource(WeightsAndMean(*setting, 5), params, source, KEY), Summary((4,))
        )
        for setting in ((model, 3), (other, 4))
    ]
    assert differences(*parts) == [
        "function.model.prior: saved vaejax.StandardNormal, now vaejax.VampPrior",
        "function.num_samples: saved 3, now 4",
    ]

"""A table that grows: what is kept of it is what was added, whatever happened to the file."""

import csv
import warnings

import pytest

from experiments.lib.csv_log import CsvLog
from tests.lib.cases import cases

COLUMNS = ("step", "name", "group", "value", "bytes")
OF = {"config": {"seed": 0}}
PIECES = [
    [
        {"step": step, "name": name, "group": group, "value": value / 7, "bytes": None}
        for group, value in (("phi", step + 1.0), ("theta", step + 2.5))
    ]
    for step in (0, 10)
    for name in ("iwae:2", "dreg:2")
]


@pytest.fixture
def path(tmp_path):
    log = CsvLog(tmp_path / "rows.csv", COLUMNS, resume=False, of=OF)
    for piece in PIECES:
        log.add(piece)
    return tmp_path / "rows.csv"


def opened(path, of=OF):
    """(the pieces that it has, what it said)."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        log = CsvLog(path, COLUMNS, resume=True, of=of)
    rows = [row | {"bytes": row["bytes"] or None} for row in log.rows]
    pieces = [i for i, piece in enumerate(PIECES) if all(row in rows for row in piece)]
    assert len(rows) == 2 * len(pieces), "rows that are none of what was added"
    return pieces, [str(warning.message) for warning in said]


def test_it_stays_and_is_a_table(path):
    before = path.read_bytes()
    assert opened(path) == ([0, 1, 2, 3], [])
    assert path.read_bytes() == before
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["value"]) for row in table[:2]] == [1 / 7, 2.5 / 7]
    assert list(table[0]) == [*COLUMNS, "digest"]


def test_every_byte_counts(path):
    """A digit, a comma, the end of a line: the rows that were added with it are dropped."""
    whole = path.read_bytes()
    header = whole.index(b"\n") + 1
    for place in range(header, len(whole), 7):
        for bit in (0x01, 0x10):
            changed = bytearray(whole)
            changed[place] ^= bit
            path.write_bytes(changed)
            pieces, said = opened(path)
            assert 2 <= len(pieces) <= 3 and len(said) == 1, (place, bit)
            assert opened(path) == (pieces, [])  # the file is of these alone now


def test_every_cut_keeps_what_is_before_it(path):
    whole = path.read_bytes()
    lines = whole.splitlines()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place])
        pieces, _ = opened(path)
        cut = whole[:place].splitlines()
        rows = sum(line == other for line, other in zip(lines, cut, strict=False)) - 1
        assert pieces == list(range(max(0, rows) // 2)), place


CHANGES = {
    "a row is gone": (lambda lines: lines[:2] + lines[3:], [1, 2, 3]),
    "a row stands twice": (lambda lines: [*lines[:3], *lines[2:]], [1, 2, 3]),
    "all stand twice": (lambda lines: [*lines, *lines[1:]], [0, 1, 2, 3]),
    "two change places": (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], [1, 2, 3]),
    "others in between": (lambda lines: [*lines[:3], "1,2,3\r\n", *lines[3:]], [0, 1, 2, 3]),
    "no digests": (lambda lines: [line.rpartition(",")[0] + "\r\n" for line in lines], []),
}


@pytest.mark.parametrize("case", cases(CHANGES))
def test_what_happens_to_rows(path, case):
    change, expected = case
    with path.open(newline="") as file:
        lines = file.readlines()
    path.write_text("".join(change(lines)), newline="")
    pieces, said = opened(path)
    assert pieces == expected and len(said) == 1


def test_rows_of_another_measurement_are_none(path):
    assert opened(path, of={"config": {"seed": 1}})[0] == []

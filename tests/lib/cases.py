"""Tables of cases as parameters of a test."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def cases(table: dict[str, Any] | Iterable[str], slow: Collection[str] = ()) -> list:
    """A parameter for each entry, under its name; those in `slow` are for `make test-all` alone."""
    entries = table if isinstance(table, dict) else {name: name for name in table}
    assert set(slow) <= set(entries), f"no such case: {set(slow) - set(entries)}"
    return [
        pytest.param(entry, id=name, marks=[pytest.mark.slow] * (name in slow))
        for name, entry in entries.items()
    ]

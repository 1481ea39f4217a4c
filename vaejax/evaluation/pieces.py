"""Results that lie in a file piece by piece: what is taken from it is what was computed, of the
same things, and no more than what is damaged is computed again.
"""

import base64
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from vaejax.base.compare import differences, told
from vaejax.base.describe import digest_of
from vaejax.base.files import whole

Summaries = dict[str, np.ndarray]

FIRST = '{"vaejax": "pieces of an evaluation", '  # how the file begins


class Pieces:
    """{number of its first example: the arrays of a piece}, in a file of what it is `of`.

    A line of JSON for what it is of, and one for each piece, with a digest of both. A kill leaves
    whole lines, and part of one. Raises ValueError for a file that is of something else, or none of
    these.
    """

    def __init__(self, path: str | Path, origin: Mapping[str, Any]):
        self.path, self.origin = Path(path), json.loads(json.dumps(origin))
        self.arrays: dict[int, Summaries] = {}
        self._identity = digest_of(self.origin)
        if not self.path.exists():
            self._write_anew()
            return
        faults = self._read()
        if faults:
            self._write_anew()
            warnings.warn(f"{self.path}: {faults}; computed again", stacklevel=3)

    def add(self, pieces: Mapping[int, Summaries]) -> None:
        """More pieces, on disk when this returns."""
        with self.path.open("a", encoding="ascii") as file:
            file.writelines(self._line(*piece) for piece in pieces.items())

    def _read(self) -> str:
        """Takes what is intact, and says what is not; "" where all is."""
        text = self.path.read_bytes().decode("ascii", errors="replace")
        first, *rest = text.splitlines(keepends=True) or [""]
        header = _parsed(first)
        is_intact = header.pop("digest", None) == digest_of(header)
        if is_intact:
            self._require_same(header.get("of", {}))
        kept = [self._piece(line) for line in rest]
        pieces = [piece for piece in kept if piece is not None]
        begins = text.startswith(FIRST) or FIRST.startswith(text)
        if not (is_intact or pieces or begins):
            raise ValueError(
                f"{self.path} is not a file of an evaluation, so it is not overwritten;"
                " name another"
            )
        self.arrays = dict(pieces)
        damaged, double = len(kept) - len(pieces), len(pieces) - len(self.arrays)
        faults = [
            "its first line is damaged" * (not is_intact),
            f"{damaged} of {len(kept)} pieces are damaged, or belong to another evaluation"
            * bool(damaged),
            f"{double} stand twice" * bool(double),
            "its end is cut off" * (not text.endswith("\n")),
        ]
        return ", ".join(filter(None, faults))

    def _require_same(self, saved: Mapping[str, Any]) -> None:
        lines = differences(saved, self.origin)
        if lines:
            raise ValueError(
                f"{self.path} holds the evaluation of another model, data set, key or setting:"
                f" {told(lines)}; remove it, or name another file"
            )
        self._identity = digest_of(saved)  # the same, where another Python compiled the code

    def _piece(self, line: str) -> tuple[int, Summaries] | None:
        """(start, arrays) of a line; None unless it is what was written, for this evaluation."""
        record = _parsed(line)
        if record.pop("digest", None) != digest_of([self._identity, record]):
            return None
        return record["start"], _arrays(record["arrays"])

    def _line(self, start: int, arrays: Summaries) -> str:
        record = {"start": start, "arrays": _parts(arrays)}
        return json.dumps(record | {"digest": digest_of([self._identity, record])}) + "\n"

    def _write_anew(self) -> None:
        """In one move, so that a kill leaves the old file or the new one."""
        header = {"vaejax": "pieces of an evaluation", "of": self.origin}
        self._identity = digest_of(self.origin)
        lines = [self._line(*piece) for piece in self.arrays.items()]
        first = json.dumps(header | {"digest": digest_of(header)}) + "\n"
        with whole(self.path) as partial:
            partial.write_text(first + "".join(lines), encoding="ascii")


def in_json(pieces: Mapping[int, Summaries]) -> list:
    """Pieces in JSON's types, to the bit."""
    return [[start, _parts(arrays)] for start, arrays in pieces.items()]


def pieces_of(pairs: list) -> dict[int, Summaries]:
    """The pieces that `in_json` gave."""
    return {start: _arrays(parts) for start, parts in pairs}


def _parsed(line: str) -> dict[str, Any]:
    """A line that is an object of JSON; {} of any other."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _parts(arrays: Summaries) -> dict[str, list]:
    return {name: _packed(array) for name, array in arrays.items()}


def _arrays(parts: Mapping[str, list]) -> Summaries:
    return {name: _array(*part) for name, part in parts.items()}


def _packed(array: np.ndarray) -> list:
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return [str(array.dtype), list(array.shape), data]


def _array(dtype: str, shape: list[int], data: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(data), jnp.dtype(dtype)).reshape(shape)

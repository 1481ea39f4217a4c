"""What differs between two descriptions: the path of each part, what was saved, and what is now."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vaejax.base.checks import SINGLE_MOST, shortened

KINDS_OF_NODE = ("class", "type", "function", "method")  # what a nested description begins with
MOST = 5  # differences in one message
NOTHING = "nothing"


def differences(saved: Any, now: Any, path: str = "") -> list[str]:
    """`path: saved X, now Y` of every part of two descriptions that differs."""
    if isinstance(saved, str) and isinstance(now, str) and path.rpartition(".")[2] == "code":
        return [] if _is_same_code(saved, now) else [_difference(path, saved, now)]
    if _is_name_alone(saved, now, path) or _is_name_alone(now, saved, path):
        return []
    pairs: list[tuple[str, Any, Any]] = []
    if isinstance(saved, Mapping) and isinstance(now, Mapping) and _is_one_kind(saved, now, path):
        for name in sorted({*saved, *now}):
            inner = f"{path}.{name}" if path else name
            pairs.append((inner, saved.get(name, NOTHING), now.get(name, NOTHING)))
    elif _are_rows(saved, now):
        rows = enumerate(zip(saved, now, strict=True))
        pairs = [(f"{path}[{i}]", *pair) for i, pair in rows]
    else:
        return [] if saved == now else [_difference(path, saved, now)]
    return [line for name, before, after in pairs for line in differences(before, after, name)]


def told(lines: list[str]) -> str:
    """The first few differences as one line; what is said of several parts in the same words is
    said once.
    """
    unique: dict[tuple[str, str], str] = {}
    for line in lines:
        path, _, values = line.partition(": ")
        unique.setdefault((path.rpartition(".")[2], values), line)
    kept = list(unique.values())
    more = f"; and {len(kept) - MOST} more" if len(kept) > MOST else ""
    return "; ".join(kept[:MOST]) + more


def _is_same_code(saved: str, now: str) -> bool:
    """Code that another Python or package compiled says nothing."""
    compilers = {text.rpartition(": ")[0] for text in (saved, now) if text.startswith("Python ")}
    return saved == now or len(compilers) == 2


def _is_name_alone(name: Any, other: Any, path: str) -> bool:
    """Whether the first is the name alone of a function or a class, and the second more of it: an
    earlier version told all by their names that had one.
    """
    if not (isinstance(other, Mapping) and {"code", "body"} & set(other)):
        return False
    if isinstance(name, Mapping):
        return len(name) == 1 and _kind(name) == _kind(other)
    return path.rpartition(".")[2] == "class" and name == _kind(other)


def _is_one_kind(saved: Mapping, now: Mapping, path: str) -> bool:
    """Whether they are compared by their parts; at the top they are plain names and values."""
    return not path or _kind(saved) == _kind(now)


def _kind(described: Mapping) -> Any:
    kind = next((described[name] for name in KINDS_OF_NODE if name in described), None)
    return _kind(kind) if isinstance(kind, Mapping) else kind


def _are_rows(saved: Any, now: Any) -> bool:
    """Whether they are two lists of equally many parts that are more than numbers."""
    if not (isinstance(saved, list) and isinstance(now, list) and len(saved) == len(now)):
        return False
    return any(isinstance(part, Mapping) or _are_rows(part, part) for part in saved + now)


def _difference(path: str, saved: Any, now: Any) -> str:
    hint = " (the same in float32 alone; write the first)" if _are_rounded(saved, now) else ""
    return f"{path}: saved {_short(saved)}, now {_short(now)}{hint}"


def _are_rounded(saved: Any, now: Any) -> bool:
    """Whether two numbers are one in float32, as np.float32(0.1) and 0.1."""
    if not (isinstance(saved, float) and isinstance(now, float)):
        return False
    return max(abs(saved), abs(now)) <= SINGLE_MOST and np.float32(saved) == np.float32(now)


def _short(described: Any) -> str:
    if isinstance(described, Mapping):
        kind = _kind(described)
        return str(kind) if kind is not None else shortened(described)
    return described if isinstance(described, str) else shortened(described)

"""Files of a result: each is written whole or not at all, and its JSON is strict."""

import json
import math
from pathlib import Path
from typing import Any

from vaejax.base.files import whole

NOT_FINITE = "not_finite"  # the key of a record under which its NaN and infinities are named


def write_text(path: Path, text: str) -> None:
    """The file, in UTF-8 whatever the locale."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, record: dict[str, Any]) -> None:
    """The record as a file of strict JSON, as `strict` has it."""
    write_text(path, json_text(record, indent=2) + "\n")


def json_text(record: dict[str, Any], indent: int | None = None) -> str:
    """The record as strict JSON, as `strict` has it."""
    return json.dumps(strict(record), indent=indent, allow_nan=False)


def strict(record: dict[str, Any]) -> dict[str, Any]:
    """The record with null for what JSON has no number for: NaN and the infinities.

    `not_finite` then says which these were, {"elbo.standard_error": "nan"}.
    """
    named: dict[str, str] = {}
    values = _nulled(record, (), named)
    return {**values, NOT_FINITE: named} if named else values


def _nulled(value: Any, path: tuple[str, ...], named: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _nulled(part, (*path, str(name)), named) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_nulled(part, (*path, str(i)), named) for i, part in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        named[".".join(path)] = str(float(value))
        return None
    return value


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """The JSON object in a file. Raises ValueError where it is none, or lacks one of the keys that
    vaejax writes.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or a thousand brackets
        raise ValueError(f"{path} is not JSON ({error}), so vaejax has not written it") from None
    missing = [key for key in keys if not isinstance(record, dict) or key not in record]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}, so vaejax has not written it")
    return record

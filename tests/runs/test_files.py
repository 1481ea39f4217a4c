"""Files of a result: strict JSON, in one move."""

import json
import math

import numpy as np
import pytest

from tests.lib.paths import ROOT
from vaejax.runs.files import json_text, read_json, strict, whole, write_json, write_text


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, np.float64("nan")], ids=repr)
def test_what_json_has_no_number_for_is_null_and_named(number):
    record = {"elbo": {"mean": 1.5, "error": number}, "kl": [0.0, (1, number)], "step": 3}
    read = json.loads(json_text(record), parse_constant=refuse)
    assert read["elbo"] == {"mean": 1.5, "error": None} and read["kl"] == [0.0, [1, None]]
    assert read["not_finite"] == {"elbo.error": str(float(number)), "kl.1.1": str(float(number))}


def test_a_record_of_numbers_is_as_it_was():
    record = {"a": {"b": [1, 2.5, None, True, "nan"]}}
    assert strict(record) == record


def test_a_file_is_the_old_one_or_the_new_one(tmp_path):
    """Whatever stops its writing; and no third is left."""
    path = tmp_path / "result.json"
    write_json(path, {"step": 1})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_json(path, {"step": object()})
    with pytest.raises(KeyboardInterrupt), whole(path) as partial:
        partial.write_text("half")
        assert path.read_bytes() == before
        raise KeyboardInterrupt
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    write_text(path, "‖ →")
    assert path.read_bytes().decode("utf-8") == "‖ →"


@pytest.mark.parametrize("folder", ["vaejax/runs", "experiments", "scripts"])
def test_json_and_text_are_written_by_one_module(folder):
    """In one move, strictly, and in UTF-8; what builds the site makes its folder anew."""
    for path in (ROOT / folder).rglob("*.py"):
        if path.name not in ("files.py", "mutants.py") and not path.name.startswith("docs"):
            text = path.read_text()
            assert "json.dump" not in text and ".write_text(" not in text, path


@pytest.mark.parametrize(
    "content, message",
    {
        b"": "is not JSON",
        b"not json": "is not JSON",
        b"\xff\xfe{}": "is not JSON",
        b"[1]": "lacks a, b",
        b"3": "lacks a, b",
        b"null": "lacks a, b",
        b'"ab"': "lacks a, b",
        b'{"a": 1}': "lacks b",
        b"[" * 100_000: "is not JSON",
    }.items(),
    ids=lambda part: repr(part)[:20],
)
def test_what_vaejax_has_not_written_is_refused_in_a_line(content, message, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{message}.* vaejax has not written it") as raised:
        read_json(path, "a", "b")
    assert "\n" not in str(raised.value)


def test_a_disk_that_is_full_is_said_with_the_file(tmp_path):
    error = OSError(28, "No space left on device")  # as `write` raises it
    message = r"No space left on device: '.*result.json'"
    with pytest.raises(OSError, match=message), whole(tmp_path / "result.json"):
        raise error
    assert list(tmp_path.iterdir()) == []

"""Processes that train together, each with its own devices, give what one process gives."""

import re
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from tests.lib.processes import ran
from tests.lib.together import answers, fault, history, shared
from tests.lib.training import PARAMS
from vaejax.evaluation import chunks

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
EVALUATION = "iwae_1", "iwae_10", "iwae_30", "elbo", "effective_samples", "k_hat", "mean"
HISTORY = "bound", "objective", "gradient_norm", "validation_bound"


# Found before anything is imported that asks for a device.
SCRIPT = """
import sys
from vaejax.base.processes import join_others
join_others()
from tests.lib import together
getattr(together, sys.argv[1])(*sys.argv[2:])
"""


def together(what, folder, *arguments, count, devices):
    ran(["-c", SCRIPT, what, str(folder), *arguments], count, devices)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    """Four processes, then two, then one: 20 steps within 5e-6 of one device's."""
    for count, num_steps in ((4, 9), (2, 14), (1, 20)):
        together("trained", tmp_path, str(num_steps), count=count, devices=2)
    ours, expected = np.load(tmp_path / "20.npz"), history(20)
    for name in HISTORY:
        np.testing.assert_allclose(ours[name], expected[name], rtol=5e-6)


@pytest.mark.slow
def test_four_processes_train_as_one(tmp_path):
    together("trained", tmp_path, "20", count=4, devices=2)
    ours, expected = np.load(tmp_path / "20.npz"), history(20)
    for name in HISTORY:
        np.testing.assert_allclose(ours[name], expected[name], rtol=5e-6)


@pytest.mark.slow
def test_what_is_measured_is_what_one_process_measures(tmp_path):
    together("asked", tmp_path, count=2, devices=2)
    expected = answers(PARAMS)
    expected["alone"] = expected["evaluate"]
    for number in range(2):
        numbers = dict(np.load(tmp_path / f"{number}.npz"))
        assert str(numbers.pop("fault")) == fault()
        prefix = "process 1 of 2 ended all: OSError: " if number == 0 else ""
        assert str(numbers.pop("ended")) == f"{prefix}the disk is full"
        assert set(numbers) == set(expected) - ({"alone"} if number == 0 else set())
        for name in numbers:
            np.testing.assert_allclose(numbers[name], expected[name], rtol=1e-5, err_msg=name)


@pytest.mark.slow
def test_what_is_shared_out_is_what_one_device_gives(tmp_path):
    """An evaluation to the bit, what is computed in longer programs but for rounding: in all
    processes. And one process finds the whole evaluation in the file of two.
    """
    together("evaluated", tmp_path, count=2, devices=2)
    expected = shared(None)
    for number in range(2):
        numbers = np.load(tmp_path / f"{number}.npz")
        assert set(numbers) == set(expected)
        for name in numbers:
            rtol = 0 if name in EVALUATION else 1e-6
            np.testing.assert_allclose(numbers[name], expected[name], rtol=rtol, err_msg=name)
    with mock.patch.object(chunks, "map_rows", side_effect=AssertionError):
        shared(None, tmp_path / "evaluation.jsonl")


@pytest.mark.slow
def test_the_page_trains_in_two_processes_as_in_one():
    """Within rounding, which 200 steps make larger."""
    script = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert script is not None
    (alone,) = bounds(script[1], 1)
    first, second = bounds(script[1], 2)
    assert first == second
    assert abs(first - alone) < 0.02


def bounds(script, count):
    """What the processes print, of four devices together, by process."""
    text = "".join(process.out for process in ran(["-c", script], count, 4 // count))
    return [float(x) for _, x in sorted(re.findall(r"process (\d+): (\S+) nats", text))]

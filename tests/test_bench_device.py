"""The device script: its rows come one by one, whatever a part does, and its truths are true."""

import json

import bench_device
import device_speed
import device_truth
import numpy as np
from workloads import WORKLOADS


def rows_of(capsys):
    lines = capsys.readouterr().out.splitlines()
    printed = [json.loads(line) for line in lines if line.startswith('{"part"')]
    assert json.loads(lines[-1])["rows"] == printed
    return printed


def test_a_part_that_fails_says_so_and_loses_nothing(monkeypatch, tmp_path, capsys):
    def good(shrink):
        yield {"case": "a", "us": 2.0 * shrink}

    def bad(shrink):
        yield {"case": "b", "us": float("nan")}
        raise RuntimeError("out of memory")

    monkeypatch.setattr(bench_device, "PARTS", {"bad": bad, "good": good})
    bench_device.main(("bad", "good"), shrink=3, out=tmp_path / "rows.jsonl")
    rows = rows_of(capsys)
    kept = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert kept == rows and [row["case"] for row in rows] == ["b", "failed", "a"]
    assert rows[0]["us"] is None and rows[1]["error"] == "RuntimeError: out of memory"
    assert rows[2]["us"] == 6.0


def test_no_row_begins_after_the_minutes(monkeypatch, capsys):
    monkeypatch.setattr(bench_device, "PARTS", {"good": lambda shrink: iter([{"case": "a"}] * 3)})
    bench_device.main(("good",), minutes=0.0)
    assert rows_of(capsys) == []


def test_the_card(capsys):
    bench_device.main(("card",), shrink=1_000)
    card, rates, loop = rows_of(capsys)
    assert card["device"] == "cpu"
    assert all(rates[f"{name}_tflops"] > 0 for name in ("float32", "default", "bfloat16"))
    assert loop["traced_us"] > 0


def test_log_marginal_in_closed_form():
    """In float32 on a CPU, of 602 nats; the mean over a hundred examples a tenth of that."""
    error = device_truth.error_of_log_marginal()
    assert error["largest"] < 5e-4 and abs(error["mean"]) < 5e-5
    assert -620 < error["log_marginal"] < -580


def test_the_count_of_operations():
    """Of two nets of two layers, 2 m n a product: forwards, in the weights, and in all inputs but
    the first's and what lies on the way. What is no product adds some percent.
    """
    workload = WORKLOADS["W1"]
    sizes = [(784, 500), (500, 40), (20, 500), (500, 784)]
    products = sum(m * n for m, n in sizes)
    exact = 2 * workload.batch_size * (3 * products - 784 * 500) / 1e9
    counted = device_speed.shares(workload, 1.0, 1_000)["gflop"]
    assert 1.0 < counted / exact < 1.1
    np.testing.assert_allclose(exact, 0.52, rtol=0.05)

"""What an accelerator gives: the speed of every part that trains or evaluates, and the error of its
products of matrices.

    python scripts/bench_device.py --minutes 7 --out device.jsonl     # all, one GPU, nothing else
    python scripts/bench_device.py --parts card steps --shrink 100    # a try on a CPU

The parts, in order of their worth; what the minutes do not hold is left out:

    card       rates of its products in float32, TF32 and bfloat16, of its memory, and what one
               step of an empty compiled loop costs with a traced and with a static count
    steps      W1 to W4: `fit`, a hand-written scan and PyTorch, µs a step; the share of the card
    evaluate   images/s of log p(x) by 5,000 importance samples
    seeds      `fit_seeds` of 1 to 256 seeds at once, dense and with both forms of convolutions
    truth      bounds and gradients with products in TF32 and in float32 (scripts/device_truth.py)
    half       `HalfPrecision`: µs a step, and how far it moves a bound
    variance   W5: the ways to a gradient's variance (scripts/bench_variance.py)
    ais        images/s of annealed importance sampling
    tests      the tests of truth under both precisions

Each row is one line of JSON, printed as soon as it is measured, and kept in --out; a part that
fails says so in its row, and the next one begins. At the end a table for each part, and all rows as
one JSON.
"""

import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch and the tests need some

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tyro
from device_speed import annealed, card, evaluate, half, seeds, steps, variance
from device_truth import tests, truth

from vaejax.runs.files import json_text, strict
from vaejax.runs.table import markdown

Row = dict[str, Any]
PARTS: dict[str, Callable[[int], Iterator[Row]]] = {
    "card": card,
    "steps": steps,
    "evaluate": evaluate,
    "seeds": seeds,
    "truth": truth,
    "half": half,
    "variance": variance,
    "ais": annealed,
    "tests": tests,
}


def main(
    parts: tuple[str, ...] = tuple(PARTS),
    minutes: float = 8.0,
    shrink: int = 1,
    out: Path | None = None,
) -> None:
    """Measures the parts, prints a table of each and one JSON.

    Args:
      parts: Which parts, in this order.
      minutes: No row is begun after so many.
      shrink: So many times fewer steps and examples, for a try.
      out: A file that gets each row as one line of JSON.
    """
    began, rows = time.monotonic(), []
    for part in parts:
        measured = PARTS[part](shrink)
        while time.monotonic() - began < 60 * minutes:
            try:
                row = next(measured, None)
            except Exception as error:
                row = {"case": "failed", "error": f"{type(error).__name__}: {error}"[:300]}
            if row is None:
                break
            row = strict({"part": part, **row, "at_seconds": round(time.monotonic() - began, 1)})
            rows.append(row)
            print(json_text(row), flush=True)
            if out is not None:
                with out.open("a") as file:
                    print(json_text(row), file=file)
    for part in dict.fromkeys(row["part"] for row in rows):
        print(f"\n{part}\n\n{table([row for row in rows if row['part'] == part])}")
    print(json_text({"rows": rows}))


def table(rows: Sequence[Row]) -> str:
    """In Markdown; a number has three digits."""
    names = list(dict.fromkeys(name for row in rows for name in row if name != "part"))

    def cell(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return markdown(names, ([cell(row.get(name, "-")) for name in names] for row in rows))


if __name__ == "__main__":
    tyro.cli(main)

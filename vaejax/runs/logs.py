"""The logs of a run: metrics.jsonl, and those that --log names."""

import hashlib
import time
from pathlib import Path
from typing import Any

from vaejax.runs.build import learning_rate_of
from vaejax.runs.config import TrainConfig
from vaejax.runs.files import json_text, write_text
from vaejax.training.logs import CSVLog, Log, LogRow, TensorBoard, WandB
from vaejax.training.run import Run


class MetricsLog(Log):
    """metrics.jsonl: the means of every 100 steps, and each validation, as training goes.

    A resumed run writes it anew, with its first rows and in one move.
    """

    def __init__(self, path: Path, every: int = 100, learning_rate: Any = None):
        super().__init__(every, learning_rate)
        self.path, self._is_begun = path, False
        self.times: list[tuple[int, float]] = []

    def __call__(self, run: Run) -> None:
        self.times.append((run.step, time.perf_counter()))
        super().__call__(run)

    def write(self, rows: list[LogRow]) -> None:
        text = "".join(json_text(row) + "\n" for row in rows)
        if self._is_begun:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
        else:
            write_text(self.path, text)
        self._is_begun = True

    def steps_per_second(self) -> float | None:
        """Between the first compiled call, whose time is the compiler's, and the last."""
        if len(self.times) < 2:
            return None
        (first, began), (last, ended) = self.times[0], self.times[-1]
        return round((last - first) / (ended - began), 2)


def logs_of(config: TrainConfig, out: Path) -> tuple[MetricsLog, *tuple[Log, ...]]:
    """metrics.jsonl, and those that --log names, within the run's folder."""
    rate = learning_rate_of(config)
    logs = {
        "csv": lambda: CSVLog(out / "log.csv", overwrite=True, learning_rate=rate),
        "tensorboard": lambda: TensorBoard(out / "tensorboard", overwrite=True, learning_rate=rate),
        "wandb": lambda: WandB(learning_rate=rate, dir=str(out), id=_id_of(out), name=out.name),
    }
    chosen = (logs[name]() for name in dict.fromkeys(config.log))
    return MetricsLog(out / "metrics.jsonl", learning_rate=rate), *chosen


def _id_of(out: Path) -> str:
    """Of the folder, so that a run that goes on is the same one for Weights & Biases."""
    digest = hashlib.sha256(str(out.resolve()).encode()).hexdigest()
    return f"{out.name}-{digest[:8]}"

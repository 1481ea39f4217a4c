"""The frame of `make reproduce`: a row goes on where it was stopped, to the same bits; it is
recorded, and shown.
"""

import dataclasses
import json
import re

import jax
import numpy as np
import optax
import pytest

import vaejax
from experiments.lib import records
from experiments.lib.reproduce import Config, computed, reproduce, work_on
from experiments.lib.reproduction import AtMost, Published, Row, Table, Within
from experiments.lib.trained_row import TrainedRow, Training
from experiments.lib.work import OutOfTime
from vaejax.training.callbacks import TimeBudget

MODEL = vaejax.VAE(
    vaejax.StandardNormal(2),
    vaejax.Bernoulli(vaejax.MLP((8, 8), (8,))),
    vaejax.DiagNormal(vaejax.MLP(2, (8,), heads=2)),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Small(Row):
    """A VAE of the digits, in 60 steps."""

    num_steps: int = 60
    learning_rate: float = 1e-3

    def compute(self, work, seed):
        dataset, transform = vaejax.prepare_pixels(work.dataset("digits"), "dynamic")
        key, init_key = jax.random.split(jax.random.key(seed))
        noise = work.kept("noise", lambda: {"shift": np.random.default_rng().random(3), "of": 7})
        run = work.fit(
            "vae",
            vaejax.minibatch(vaejax.Pathwise(), MODEL),
            MODEL.init(init_key, transform(dataset.train.images[0], key)),
            optax.adam(self.learning_rate),
            dataset.train.images,
            key,
            num_steps=work.steps(self.num_steps),
            batch_size=50,
            transform=transform,
            checkpoint_every=20,
        )
        numbers = work.evaluation(MODEL, run.params, dataset.test.images, transform, num_samples=50)
        return {**numbers, "noise": float(noise["shift"].sum()), "of": float(noise["of"])}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained(TrainedRow):
    """The same, as one training."""

    num_steps: int = 60

    def training(self, work, seed):
        dataset, transform = vaejax.prepare_pixels(work.dataset("digits"), "dynamic")
        key, init_key = jax.random.split(jax.random.key(seed))
        start = MODEL.init(init_key, transform(dataset.train.images[0], key))
        objective = vaejax.minibatch(vaejax.Pathwise(), MODEL)
        images, steps = dataset.train.images, work.steps(self.num_steps)
        return Training(objective, start, optax.adam(1e-3), images, key, steps, 50, transform)

    def evaluated(self, work, params):
        dataset, transform = vaejax.prepare_pixels(work.dataset("digits"), "dynamic")
        return work.evaluation(MODEL, params, dataset.test.images, transform, num_samples=50)


PAPER = Published(30.0, "nats", "A paper")
TABLE = Table(
    "small",
    "A small table",
    rows=(
        Small(name="short", published=PAPER, reached=Within(15.0), num_seeds=2),
        Small(name="long", published=PAPER, reached=AtMost(1), num_steps=80, versus=("short",)),
        Small(name="open", published=Published(None, "nats", "None")),
        Trained(name="trained", published=PAPER, num_seeds=2),
    ),
    columns={"active_units": "active units"},
)


class Spent(TimeBudget):
    """A budget that is over after so many looks at the clock."""

    def __init__(self, looks):
        super().__init__(1.0)
        self.looks = looks

    def is_over(self):
        self.looks -= 1
        return self.looks < 0


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(records, "PAGE", tmp_path / "reproduced.md")
    monkeypatch.setattr(records, "README", tmp_path / "README.md")
    monkeypatch.setattr(records, "SHORT", {"small": ("short", "open")})
    (tmp_path / "README.md").write_text(f"# A\n{records.BEGIN}\nold\n{records.END}\nB\n")
    monkeypatch.setattr(records, "tables", lambda: [TABLE])
    return Config(out=str(tmp_path / "work"), revision="abc")


def without_noise(numbers):
    return {name: value for name, value in numbers.items() if name != "noise"}


def test_a_row_goes_on_to_the_same_bits(config):
    """Stopped at each look at the clock that it takes."""
    row = TABLE["short"]
    whole = computed(TABLE, row, 0, dataclasses.replace(config, out=config.out + "-whole"), None)
    stops, looks = 0, 1
    while True:
        try:
            numbers = computed(TABLE, row, 0, config, Spent(looks))
            break
        except OutOfTime:
            stops, looks = stops + 1, looks + 1
    assert stops >= 3
    assert without_noise(numbers) == without_noise(whole)
    assert numbers["noise"] != whole["noise"]  # drawn once in each folder, of no seed
    assert computed(TABLE, row, 0, config, None) == numbers


def test_recorded_and_shown(config, tmp_path):
    assert reproduce(TABLE, dataclasses.replace(config, row="short"))["row"] == "short"
    reproduce(TABLE, dataclasses.replace(config, row="long"))
    kept = json.loads((tmp_path / "results" / "small" / "short.json").read_text())
    values = [result["numbers"]["nll"] for result in kept["seeds"].values()]
    assert len(values) == 2
    mean, error = kept["ours"]["nll"].values()
    assert mean == pytest.approx(np.mean(values))
    assert error == pytest.approx(abs(values[0] - values[1]) / 2)
    assert kept["difference"] == pytest.approx(mean - 30)
    assert kept["is_reached"] == (abs(mean - 30) <= 15)
    assert kept["seeds"]["0"]["git"]
    long = json.loads((tmp_path / "results" / "small" / "long.json").read_text())
    assert long["versus"]["short"]["mean"] == pytest.approx(
        long["ours"]["nll"]["mean"] - mean, abs=1e-4
    )
    assert long["is_reached"] is False
    page = (tmp_path / "reproduced.md").read_text()
    assert page == records.page()
    assert f"{mean:.2f} ± {error:.2f}" in page
    readme = (tmp_path / "README.md").read_text()
    assert readme.startswith("# A\n") and readme.endswith(f"{records.END}\nB\n")
    assert f"| 30.00     | {mean:.2f} ± {error:.2f} |" in readme and "old" not in readme
    assert "not computed" in page
    assert re.search(
        r"\n- `short`: 2 seeds of \d+ epochs, \d+ s each, on 8 x cpu, revision \w", page
    )
    assert "`long` less `short`, over the same 300 examples:" in page


def test_what_is_not_done_is_not_recorded(config):
    shrunk = dataclasses.replace(config, row="long", shrink=10)
    reproduce(TABLE, shrunk)
    assert not records.records_of(TABLE)
    with pytest.raises(ValueError, match="no result yet"):
        records.record(TABLE, TABLE["long"], records.Path(config.out))


def test_other_settings_in_the_folder_are_refused(config):
    reproduce(TABLE, dataclasses.replace(config, row="long", seed=0))
    rows = (dataclasses.replace(TABLE["long"], learning_rate=0.1, versus=()),)
    with pytest.raises(ValueError, match=r"learning_rate: saved 0\.001, now 0\.1"):
        reproduce(
            dataclasses.replace(TABLE, rows=rows), dataclasses.replace(config, row="long", seed=0)
        )


def test_what_is_said_of_a_row_is_no_setting(config):
    """A note or another goal does not make a row anew."""
    first = reproduce(TABLE, dataclasses.replace(config, row="long", seed=0))
    said = dataclasses.replace(TABLE["long"], note="missed", reached=Within(1), versus=())
    again = dataclasses.replace(TABLE, rows=(said,))
    assert reproduce(again, dataclasses.replace(config, row="long", seed=0)) == first


def test_the_time_is_up(config, capsys):
    config = dataclasses.replace(config, row="long", max_minutes=1e-6)
    assert reproduce(TABLE, config) == {"stopped": "long, seed 0: between two parts"}
    assert "the same command goes on" in capsys.readouterr().err


def test_unknown_rows(config):
    with pytest.raises(ValueError, match="long"):
        reproduce(TABLE, dataclasses.replace(config, row="lnog"))
    with pytest.raises(ValueError, match="compared with"):
        Table("t", "T", rows=(dataclasses.replace(TABLE["long"], versus=("absent",)),))


def test_seeds_together_are_the_seeds_one_by_one(config):
    """On a CPU to the same bits; the training is not made again."""
    config = dataclasses.replace(config, row="trained")
    alone = dataclasses.replace(config, out=config.out + "-alone")
    expected = [computed(TABLE, TABLE["trained"], seed, alone, None) for seed in (0, 1)]
    reproduce(TABLE, dataclasses.replace(config, together=True))
    kept = records.records_of(TABLE)["trained"]["seeds"].values()
    assert [result["numbers"] for result in kept] == expected
    assert all(result["command"].endswith("--row trained --together") for result in kept)
    assert all(result["training"]["model"]["steps"] == 60 for result in kept)


def test_seeds_that_are_stopped_together_go_on_alone(config, monkeypatch):
    alone = dataclasses.replace(config, row="trained", out=config.out + "-alone")
    expected = computed(TABLE, TABLE["trained"], 1, alone, None)
    whole = vaejax.fit_seeds

    def stopped(*args, num_steps, **settings):
        error = KeyboardInterrupt()
        error.run = whole(*args, num_steps=25, **settings)
        raise error

    monkeypatch.setattr(vaejax, "fit_seeds", stopped)
    config = dataclasses.replace(config, row="trained")
    with pytest.raises(KeyboardInterrupt):
        reproduce(TABLE, dataclasses.replace(config, together=True))
    monkeypatch.undo()
    work = work_on(TABLE, TABLE["trained"], 1, config)
    assert [path.name for path in (work.folder / "fits" / "model").glob("[0-9]*")] == ["25"]
    assert computed(TABLE, TABLE["trained"], 1, config, None) == expected


def test_other_rows_have_no_training_of_their_own(config):
    with pytest.raises(ValueError, match="seeds of long are trained one after another"):
        reproduce(TABLE, dataclasses.replace(config, row="long", together=True))

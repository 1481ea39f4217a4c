r"""Amortised, semi-amortised and per-datapoint inference: the bound that each reaches, against its
time.

    python experiments/inference/amortisation.py
    python experiments/inference/amortisation.py --data binarized_mnist --latent-dim 20 \
        --num-steps 10000 --eval-size 500 --out runs/amort_mnist

A VAE is trained as usual. Then theta stays, and the test ELBO is measured with q from the encoder,
with q refined by steps of gradient ascent from there, and with q found by such steps from N(0, I),
the encoder out of the game (`vaejax.Refined`). What the encoder misses of the best diagonal normal
is the amortisation gap. The time is that of q(z|x) alone, compiled, over the whole test set, per
example.

Expected: refining the encoder's q gets in a few steps what starting anew takes many times as many
for (Kim et al. 2018; Cremer et al. 2018). Measured by the first command: the encoder's q has a test
ELBO of -23.29; 5 steps from it gain 0.15 +- 0.01 nats, 20 steps 0.20, 100 steps 0.24. From N(0, I),
20 steps are 0.79 +- 0.05 below the encoder, 50 steps 0.08 above, 100 steps 0.24 above, and 200 no
higher: the amortisation gap is 0.24 nats, and 5 steps from the encoder close more of it than 50
from nowhere do. The 100 steps take 90 times as long as the encoder.

Duration: 97 s on two cores of an Intel Xeon that had other work.
"""

import dataclasses
import time
from functools import partial

import jax
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

import vaejax
from experiments.lib import figures, flags, tables
from experiments.lib.data import Examples, drawn
from experiments.lib.script import Report, run_script, tell
from vaejax import plots
from vaejax.base.fields import Count, CountOrZero, Distinct
from vaejax.base.mapping import Transformed
from vaejax.inference.refined import Start
from vaejax.runs.build import load_data, trained


@dataclasses.dataclass(frozen=True)
class Config(flags.PlainSetting):
    """A VAE, and how far q is refined."""

    latent_dim: Count = 8
    hidden: tuple[Count, ...] = (100,)
    num_steps: Count = 3_000
    steps_from_encoder: Distinct[CountOrZero] = (0, 1, 2, 5, 10, 20, 50, 100)
    """Numbers of refining steps from the encoder's q; 0 is amortised inference."""
    steps_from_standard: Distinct[Count] = (5, 10, 20, 50, 100, 200)
    """Numbers of refining steps from N(0, I)."""
    refining_rate: flags.RefiningRate = 0.1
    bound_samples: flags.BoundSamples = 50
    eval_size: flags.EvalSize = None
    out: str = "runs/amortisation"

    def check_together(self) -> None:
        super().check_together()
        if self.steps_from_encoder[0] != 0:
            raise ValueError(
                f"steps_from_encoder = {self.steps_from_encoder}; it starts with 0, the encoder as"
                " it is, which the others are compared with"
            )


def milliseconds(model: vaejax.Refined, params: vaejax.Params, test: Examples, key) -> float:
    """What q takes for one example: the least of three passes, so that compiling is out."""
    inference = Transformed(lambda params, x, key: model.posterior(params, x), test.transform)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        jax.block_until_ready(vaejax.map_dataset(inference, params, test.stored, key))
        seconds.append(time.perf_counter() - began)
    return 1e3 * min(seconds) / len(test)


def compare(
    config: Config, model: vaejax.VAE, params: vaejax.Params, test: Examples, key
) -> list[dict]:
    """A row for each start and number of steps; the gain on the encoder's q is paired."""
    runs: list[tuple[Start, int]] = [
        *(("encoder", steps) for steps in config.steps_from_encoder),
        *(("standard", steps) for steps in config.steps_from_standard),
    ]
    rows, amortised = [], None
    for start, steps in runs:
        refined = vaejax.Refined(model, steps, start, learning_rate=config.refining_rate)
        bound = partial(vaejax.AnalyticKL(config.bound_samples), refined)
        elbo = test.each(bound, params, key)
        amortised = elbo if amortised is None else amortised
        gain, mean = vaejax.estimate(elbo - amortised), vaejax.estimate(elbo).mean
        row = {"start": start, "steps": steps, "elbo": mean}
        row |= {"milliseconds": milliseconds(refined, params, test, key)}
        rows.append(row | {"gain": gain.mean, "error_of_gain": gain.standard_error})
        tell(f"{start}, {steps} steps: ELBO {mean:.2f}, gain {gain}")
    return rows


def figure(rows: list[dict], title: str) -> Figure:
    """The bound against the time of inference, which starts at the encoder's."""
    drawing, [[axes]] = plots.figure_of(size=(7, 4.2))
    amortised, *others = rows
    for start, label, colour, offset, side in (
        ("encoder", "semi-amortised: steps from the encoder's q", plots.BLUE, (0, 7), "center"),
        ("standard", "per data point: steps from N(0, I)", plots.ORANGE, (7, -10), "left"),
    ):
        points = tables.columns(tables.where(others, start=start), "milliseconds", "elbo", "steps")
        axes.plot(*points[:2], "o-", color=colour, label=label, ms=4)
        style = {"fontsize": 8, "color": colour, "ha": side}
        for *point, steps in zip(*points, strict=True):
            figures.note(axes, str(steps), tuple(point), offset, **style)
    encoder, best = amortised["elbo"], max(row["elbo"] for row in rows)
    label = "amortised: the encoder"
    axes.plot(amortised["milliseconds"], encoder, "D", color=plots.INK, label=label, ms=7)
    axes.axhline(encoder, color=plots.INK, lw=0.7, ls=":")
    plots.finish(axes, xscale="log", xlabel="time of q(z|x) (ms per example)", title=title)
    axes.set_ylabel("test ELBO (nats per example)")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    gap = best - encoder
    axes.set_ylim(min(encoder - 4 * gap, best - 1), best + 0.25 * gap + 0.1)
    plots.legend(axes)
    return drawing


def experiment(config: Config) -> Report:
    dataset, transform = load_data(config)
    training = dataset.train.images
    model, params = trained(config, training, transform, config.num_steps, estimator="analytic-kl")
    rows_key, key = (jax.random.key(config.seed + number) for number in (2, 1))
    test = Examples(drawn(dataset.test, config.eval_size, rows_key).images, transform)
    rows = compare(config, model, params, test, key)
    header = "start | steps | test ELBO | gain on the encoder | ms per example"
    numbers = "{elbo:.2f} | {gain:+.2f} ± {error_of_gain:.2f} | {milliseconds:.3f}"
    table = tables.table(header, f"{{start}} | {{steps}} | {numbers}", rows)
    heading = f"nats per test example, {len(test)} of them; the gain is paired, ± its standard"
    title = f"{config.data}: the same model, three kinds of inference (numbers of steps)"
    return Report(
        {"data": dataset.source, "rows": rows},
        f"{heading} error\n{table}",
        {"amortisation": lambda: figure(rows, title)},
    )


if __name__ == "__main__":
    run_script(Config, experiment)

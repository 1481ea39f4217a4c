r"""log p(x) between two bounds, by annealed importance sampling in both directions; and what it
adds to importance sampling on real data.

    python experiments/inference/ais_sandwich.py
    python experiments/inference/ais_sandwich.py --data binarized_mnist --latent-dim 20 \
        --num-steps 20000 --temperature-counts 100 1000 --out runs/ais_mnist

A VAE is trained. Of examples drawn from it, an exact sample of p(z|x) is known, the z that they
were drawn from, so bidirectional Monte Carlo bounds log p(x) from both sides (`vaejax.AIS.bdmc`);
how far apart the two are says how well chains of this length do. On test examples the lower bound
alone is left, beside the ELBO and IWAE-K; the upper end of the simulated gap is what it may still
miss.

Expected: the sandwich closes as the temperatures grow in number (Wu et al. 2017). Measured by the
first command, nats per example:

    temperatures    simulated: lower    upper              gap                test: lower
    10              -24.80 +- 0.42      -22.00 +- 0.36     2.803 +- 0.202     -23.75 +- 0.43
    50              -23.89 +- 0.38      -23.74 +- 0.39     0.157 +- 0.088     -22.73 +- 0.38
    500             -23.85 +- 0.37      -23.84 +- 0.37     0.018 +- 0.016     -22.59 +- 0.38

On the same test examples the ELBO is -22.98, IWAE-100 -22.61 and IWAE-5000 -22.60: with eight
latents importance sampling gets there too.

Duration: 90 s on one core of an Intel Xeon.
"""

import dataclasses
import time

import jax
import numpy as np
from matplotlib.figure import Figure

import vaejax
from experiments.lib import flags, tables
from experiments.lib.data import Examples, drawn
from experiments.lib.script import Report, run_script, tell
from vaejax import plots
from vaejax.base.fields import Count, Distinct, Plural
from vaejax.runs.build import load_data, trained


@dataclasses.dataclass(frozen=True)
class Config(flags.PlainSetting):
    """A VAE, and the chains."""

    hidden: tuple[Count, ...] = (100,)
    latent_dim: Count = 8
    num_steps: Count = 5_000
    temperature_counts: Distinct[Count] = (10, 50, 500)
    """Numbers of temperatures, on a sigmoid schedule."""
    num_chains: flags.NumChains = 16
    num_leapfrog: Count = 10
    """Steps of one move of HMC."""
    num_simulated: Plural = 100
    """Examples drawn from the model."""
    eval_size: flags.EvalSize = 100
    eval_samples: flags.EvalSamples = 5_000
    out: str = "runs/ais_sandwich"


def sandwich(
    config: Config, sampler: vaejax.AIS, params: vaejax.Params, test: Examples, keys
) -> dict:
    """Both bounds on simulated data, the lower one on real data, by a key of each."""

    def simulated(params, number, key):
        bounds = sampler.bdmc(params, key)
        return bounds.lower, bounds.upper, bounds.acceptance

    began = time.perf_counter()
    simulated_key, real_key = keys
    numbers = np.arange(config.num_simulated)
    *bounds, acceptance = vaejax.map_dataset(
        simulated, params, numbers, simulated_key, batch_size=20
    )
    lower, upper = (np.asarray(values, np.float64) for values in bounds)
    return {
        "lower": vaejax.estimate(lower),
        "upper": vaejax.estimate(upper),
        "gap": vaejax.estimate(upper - lower),
        "real": vaejax.estimate(test.each(sampler, params, real_key, batch_size=20)),
        "acceptance": float(np.mean(acceptance)),
        "seconds": time.perf_counter() - began,
    }


def figure(rows: list[dict], evaluation: vaejax.Evaluation, title: str) -> Figure:
    """Left: both bounds on simulated data. Right: on test data, AIS against IWAE-K."""
    drawing, [[left, right]] = plots.figure_of(columns=2, size=(10, 4))
    counts, *bounds = tables.columns(rows, "temperatures", "lower", "upper", "real")
    lower, upper, real = ([bound.mean for bound in column] for column in bounds)
    middle = (lower[-1] + upper[-1]) / 2
    lower, upper = np.subtract(lower, middle), np.subtract(upper, middle)
    left.plot(counts, upper, "o-", color=plots.ORANGE, label="upper bound")
    left.plot(counts, lower, "o-", color=plots.BLUE, label="lower bound")
    left.fill_between(counts, lower, upper, color=plots.PALE)
    left.axhline(0, color=plots.GREY, lw=0.7, ls=":")
    label = f"log p(x) − ({middle:.2f}) (nats per example)"
    plots.finish(left, xscale="log", xlabel="temperatures", ylabel=label)
    closed = f"simulated data: the gap closes to {rows[-1]['gap'].mean:.3f} nats"
    left.set_title(closed, fontsize=10)
    plots.ticks_at(left, counts, "{:,.0f}")
    plots.legend(left, "upper right")

    samples, means = list(evaluation.iwae), [bound.mean for bound in evaluation.iwae.values()]
    right.plot(samples, means, "s-", color=plots.INK, label="IWAE-K, against K")
    right.plot(counts, real, "o-", color=plots.BLUE, label="AIS, against its temperatures")
    label = "lower bound on log p(x) (nats per example)"
    plots.finish(right, xscale="log", xlabel="K, or temperatures", ylabel=label)
    right.set_title("test data", fontsize=10)
    plots.ticks_at(right, [10**power for power in range(len(str(max(samples))))], "{:,.0f}")
    plots.legend(right, "lower right")
    drawing.suptitle(title, fontsize=plots.TITLE)
    return drawing


def experiment(config: Config) -> Report:
    dataset, transform = load_data(config)
    settings = {"estimator": "analytic-kl", "schedule": "cosine"}
    model, params = trained(config, dataset.train.images, transform, config.num_steps, **settings)
    rows_key, *keys = jax.random.split(jax.random.key(config.seed + 1), 3)
    test = Examples(drawn(dataset.test, config.eval_size, rows_key).images, transform)
    rows, moves = [], vaejax.ais.HMC(config.num_leapfrog)
    for count in config.temperature_counts:
        schedule = vaejax.ais.Sigmoid(count)
        sampler = vaejax.AIS(model, schedule, config.num_chains, transition=moves)
        rows.append({"temperatures": count, **sandwich(config, sampler, params, test, keys)})
        tell(f"{count} temperatures: gap {rows[-1]['gap'].mean:.3f} nats")
    # The same key as for the chains, so that the same pixels are seen.
    settings = {"num_samples": config.eval_samples, "transform": transform, "batch_size": 20}
    evaluation = vaejax.evaluate(model, params, test.stored, keys[1], **settings)
    header = "temperatures | simulated: lower | upper | gap | test: lower | acceptance | seconds"
    bounds = "{lower} | {upper} | {gap:.3f} | {real} | {acceptance:.2f} | {seconds:.0f}"
    table = tables.table(header, f"{{temperatures}} | {bounds}", rows)
    heading = (
        f"nats per example, mean over {config.num_simulated} simulated and {len(test)} test"
        " examples ± standard error"
    )
    title = f"{config.data}: bounds on log p(x) of one VAE"
    iwae = {str(count): bound for count, bound in evaluation.iwae.items()}
    return Report(
        {"data": dataset.source, "rows": rows, "iwae": iwae},
        f"{heading}\n{table}\n\nthe same test examples\n{evaluation}",
        {"ais_sandwich": lambda: figure(rows, evaluation, title)},
    )


if __name__ == "__main__":
    run_script(Config, experiment)

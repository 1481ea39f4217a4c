"""What experiments share. An experiment is one file, read from top to bottom: claim, setting, run,
table, picture.

    @dataclasses.dataclass(frozen=True)
    class Config(flags.ImageSetting):      # every field is a flag, its annotation the range
        num_steps: Count = 1_000
        eval_size: flags.EvalSize = None   # with its meaning
        out: str = "runs/name"

    def experiment(config: Config) -> Report:
        dataset, transform = load_data(config)
        ...
        tell(f"{prior}: ELBO {elbo}")      # on standard error, as soon as it is known
        numbers = {"data": dataset.source, "rows": rows}
        table = tables.table("prior | ELBO", "{prior} | {elbo:.2f}", rows)
        return Report(numbers, table, {"name": lambda: figure(rows)})

    if __name__ == "__main__":
        run_script(Config, experiment)

flags        what the flags are called that experiments share, and what each means
script       the command line, the folder, result.json, the last line of output
data         examples as a model sees them, a quantity of each; at random, one of each class
training     Adam under a cosine, of one seed or of several at once
encoders     several families of q on one decoder, and their flags
classifiers  networks p(y | x) as objectives; a few labelled images
gradients    variances of gradients: where they are measured, and beside what is exact
tables       rows {column: value}: some of them, their columns, and Markdown
figures      on `vaejax.plots`: curves of rows with their errors, notes, seeds, rows of images

and the larger parts of an experiment that stand on their own:

normal_gradients     four estimators of the gradient of E f(x), x normal: exact variances
logistic_regression  Bayesian, of the breast-cancer data, with its exact bound
many_samples         gradients of importance-weighted bounds as K grows: the constants
grid                 a posterior over two latents, and each q, on a grid
variances            estimators along a training: means over seeds, the best, table, pictures
bernoulli            E f(b) of Bernoulli variables, and what is exact of its gradient
discrete_estimators  gradient estimators through discrete latents, by name
discrete_vae         a VAE with Bernoulli latents, trained and measured by each of them
probes               simple classifiers that are shown a few labelled examples
shapes               images whose factors are known


A published table is one file of `experiments.reproduce`; of these are

reproduction  the contract: a row, what is published of it, when it is reached; a table
work          a row at work: trainings and results that are kept, within a budget of time
reproduce     the command: `python -m experiments.reproduce.iwae --row iwae-5`
records       what is recorded of the rows, and docs/reproduced.md
burda         the nets of the IWAE's paper

No experiment imports another: what two need is here.
"""

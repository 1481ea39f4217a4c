"""What experiments share. An experiment is one file, read from top to bottom: claim, setting, run,
table, picture.

    from experiments.lib import figures, tables
    from experiments.lib.data import ImageSetting, load_images
    from experiments.lib.script import Report, run_script
    from vaejax.base.fields import Count

    @dataclasses.dataclass(frozen=True)
    class Config(ImageSetting):            # every field is a flag, its docstring the help
        num_steps: Count = 1_000           # and its annotation the range
        out: str = "runs/name"             # the folder for result.json and the pictures

    def experiment(config: Config) -> Report:
        dataset, transform = load_images(config)
        ...
        numbers = {"data": dataset.source, "rows": rows}
        return Report(numbers, tables.markdown(header, cells), {"name": lambda: figure(rows)})

    if __name__ == "__main__":
        run_script(Config, experiment)

script       the command line, the folder, result.json, the last line of output
data         images as a model sees them, rows at random, one of each class
training     Adam under a cosine; the parameters of each seed
encoders     several families of q on one decoder
classifiers  a few labelled images; the objectives of classifiers
gradients    a model of any E_q f; what was measured of a variance beside what is exact
tables       Markdown, means with errors
csv_log      a table in a file that grows row by row
figures      on `vaejax.plots.look`: notes, error bars, rows of images with names

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

No experiment imports another: what two need is here.
"""

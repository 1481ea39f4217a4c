"""Other libraries' own loops on the workloads of the benchmarks: NumPyro's, PyTorch's and
Pythae's.

Each is what its documentation shows, with the nets, the bound and the optimiser of the workload.
"""

import importlib.util
import itertools
import logging
import math
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import SVI, RenyiELBO, Trace_ELBO
from workloads import Workload, convolutions, dense, hand_written_run, vaejax_run

from vaejax.runs.command import nowhere

PEERS = "hand-written", "NumPyro", "PyTorch", "Pythae"


def numpyro_run(workload: Workload, data: np.ndarray) -> Callable[[], None]:
    """The loop of NumPyro's example of a VAE: a model, a guide and SVI, many steps in one
    `fori_loop`.
    """
    dim, batch_size, num_samples = workload.latent_dim, workload.batch_size, workload.num_samples
    nets: Any = (convolutions if workload.conv else dense)(workload)
    encode, decode, start = nets  # NumPyro takes a tree where its types say an array
    stored = jnp.asarray(data.reshape(len(data), 784), jnp.float32)

    def model(x):
        decoder = numpyro.param("decoder", start[1])
        with numpyro.plate("batch", batch_size):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(dim), 1).to_event(1))
            pixels = dist.Bernoulli(logits=decode(decoder, z))
            numpyro.sample("x", pixels.to_event(1), obs=x)

    def guide(x):
        encoder = numpyro.param("encoder", start[0])
        loc, log_scale = jnp.split(encode(encoder, x), 2, axis=-1)
        with numpyro.plate("batch", batch_size):
            numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    bound = Trace_ELBO() if num_samples == 1 else RenyiELBO(0, num_samples)
    svi = SVI(model, guide, numpyro.optim.Adam(1e-3), bound)

    @jax.jit
    def train(state, data, rows):
        def step(i, state_and_loss):
            return svi.update(state_and_loss[0], data[rows[i]])

        return jax.lax.fori_loop(0, len(rows), step, (state, jnp.zeros(())))

    def run():
        shuffled = np.random.default_rng(0).permutation(len(data))
        rows = np.resize(shuffled, (workload.num_steps, batch_size)).astype(np.int32)
        state = svi.init(jax.random.key(1), stored[:batch_size])
        np.asarray(train(state, stored, rows)[1])

    return run


def pytorch_run(workload: Workload, data: np.ndarray) -> Callable[[], None]:
    """The loop of a PyTorch tutorial: modules, Adam, one Python step a batch. On a GPU where there
    is one, with products in TF32, as JAX has them.
    """
    import torch
    from torch import nn as tnn

    # Named at each call: a default device is looked up by Python at each operation.
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    dim, num_samples = workload.latent_dim, workload.num_samples
    images, encoder, decoder = pytorch_parts(workload, data)
    images, encoder, decoder = images.to(device), encoder.to(device), decoder.to(device)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3)

    def run():
        shuffled, loss = torch.randperm(len(data), device=device), torch.zeros(())
        for i in range(workload.num_steps):
            start = i * workload.batch_size % (len(data) - workload.batch_size)
            x = images[shuffled[start : start + workload.batch_size]]
            loc, log_scale = encoder(x).chunk(2, -1)
            if num_samples > 1:
                loc, log_scale, x = loc[:, None], log_scale[:, None], x[:, None]
            shape = (len(x), num_samples, dim) if num_samples > 1 else loc.shape
            noise = torch.randn(shape, device=device)
            z = loc + log_scale.exp() * noise
            logits = decoder(z)
            pixels = tnn.functional.binary_cross_entropy_with_logits(
                logits, x.expand_as(logits), reduction="none"
            )
            log_likelihood = -pixels.flatten(1 if num_samples == 1 else 2).sum(-1)
            log_w = log_likelihood + (0.5 * noise**2 + log_scale - 0.5 * z**2).sum(-1)
            loss = -(
                log_w if num_samples == 1 else log_w.logsumexp(-1) - math.log(num_samples)
            ).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()

    return run


def pytorch_parts(workload: Workload, data: np.ndarray) -> tuple[Any, Any, Any]:
    """The images as the nets take them, x -> heads and z -> logits."""
    import torch
    from torch import nn as tnn

    dim = workload.latent_dim
    activation = {"relu": tnn.ReLU, "tanh": tnn.Tanh}[workload.activation]

    def mlp(*sizes):
        parts = [
            part
            for m, n in itertools.pairwise(sizes[:-1])
            for part in (tnn.Linear(m, n), activation())
        ]
        return tnn.Sequential(*parts, tnn.Linear(sizes[-2], sizes[-1]))

    if workload.conv:
        images = torch.tensor(data, dtype=torch.float32)[:, None]
        encoder = tnn.Sequential(
            *(
                tnn.Conv2d(1, 32, 3, 2, 1),
                tnn.ReLU(),
                tnn.Conv2d(32, 64, 3, 2, 1),
                tnn.ReLU(),
                tnn.Flatten(),
            ),
            *(tnn.Linear(49 * 64, 256), tnn.ReLU(), tnn.Linear(256, 2 * dim)),
        )
        up = {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}
        decoder = tnn.Sequential(
            *(
                tnn.Linear(dim, 256),
                tnn.ReLU(),
                tnn.Linear(256, 49 * 64),
                tnn.ReLU(),
                tnn.Unflatten(1, (64, 7, 7)),
            ),
            *(tnn.ConvTranspose2d(64, 32, **up), tnn.ReLU(), tnn.ConvTranspose2d(32, 1, **up)),
        )
    else:
        images = torch.tensor(data.reshape(len(data), 784), dtype=torch.float32)
        encoder, decoder = (
            mlp(784, *workload.hidden, 2 * dim),
            mlp(dim, *workload.hidden[::-1], 784),
        )
    return images, encoder, decoder


def pythae_run(workload: Workload, data: np.ndarray) -> Callable[[], None]:
    """Pythae's trainer on as many examples as the steps take, once: its VAE or IWAE, with the nets
    of the workload.
    """
    import torch
    from pythae.data.datasets import BaseDataset
    from pythae.models import IWAE, VAE, IWAEConfig, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    logging.disable(logging.INFO)  # each of its modules has a log of its own, on the screen
    images, encoder, decoder = pytorch_parts(workload, data)
    size = workload.num_steps * workload.batch_size
    examples = images[torch.arange(size) % len(images)]
    settings = {
        "input_dim": tuple(examples.shape[1:]),
        "latent_dim": workload.latent_dim,
        "reconstruction_loss": "bce",
    }

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.net = encoder

        def forward(self, x):
            loc, log_scale = self.net(x).chunk(2, -1)
            return ModelOutput(embedding=loc, log_covariance=2 * log_scale)

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.net = decoder

        def forward(self, z):
            return ModelOutput(reconstruction=torch.sigmoid(self.net(z)))

    if workload.num_samples == 1:
        model = VAE(VAEConfig(**settings), Encoder(), Decoder())
    else:
        several = IWAEConfig(**settings, number_samples=workload.num_samples)
        model = IWAE(several, Encoder(), Decoder())

    def run():
        with tempfile.TemporaryDirectory() as folder:
            config = BaseTrainerConfig(
                output_dir=folder,
                num_epochs=1,
                per_device_train_batch_size=workload.batch_size,
                learning_rate=1e-3,
            )
            trainer = BaseTrainer(
                model, BaseDataset(examples, torch.zeros(size)), training_config=config
            )
            with nowhere() as hidden, redirect_stderr(hidden):  # its bars
                trainer.train()

    return run


def torch_version() -> str | None:
    """Of PyTorch; None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch.__version__


def systems_of(workload: Workload, data: np.ndarray) -> dict[str, Callable[[], None]]:
    """What runs a workload here, by name; PyTorch and Pythae where they are installed."""
    systems = {"fit": vaejax_run(workload, data)}
    # On a CPU a convolution within a compiled loop takes a slow path, seconds a step.
    if not (workload.conv and jax.default_backend() == "cpu"):
        systems["hand-written"] = hand_written_run(workload, data)
        systems["NumPyro"] = numpyro_run(workload, data)
    if torch_version():
        systems["PyTorch"] = pytorch_run(workload, data)
    if importlib.util.find_spec("pythae"):
        systems["Pythae"] = pythae_run(workload, data)
    return systems

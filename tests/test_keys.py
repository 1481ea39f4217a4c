"""What is no random key is refused in one line, at every entry point."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib import entry_points
from tests.lib.cases import cases
from tests.lib.entry_points import OF_ONE, OVER_DATA
from tests.lib.kinds import IMAGES, pixels

MODEL = vaejax.VAE(
    vaejax.StandardNormal(2), pixels(), vaejax.DiagNormal(vaejax.MLP(2, (), heads=2))
)
NO_KEYS = (0, np.int64(1), 0.5, None, [0, 1], "key", jnp.arange(2), jnp.uint32(0))
SEVERAL = (jax.random.split(jax.random.key(0), 3), jax.random.split(jax.random.PRNGKey(0), 3))
WITHOUT_KEY = {"heads", "Trainer"}  # one takes none; the other is what `fit` makes
ENTRIES = {name: call for name, call in (OF_ONE | OVER_DATA).items() if name not in WITHOUT_KEY}


@pytest.fixture(scope="module")
def params():
    return MODEL.init(jax.random.key(0), IMAGES[0])


@pytest.mark.parametrize("name", cases(ENTRIES.keys()))
def test_what_is_no_key(name, params, monkeypatch):
    x = IMAGES[0] if name in OF_ONE else IMAGES
    several = SEVERAL if name != "fit_seeds" else [keys[0] for keys in SEVERAL]
    for key in (*NO_KEYS, *several):
        monkeypatch.setattr(entry_points, "KEY", key)
        monkeypatch.setattr(entry_points, "KEYS", key)
        with pytest.raises((TypeError, ValueError)) as refusal:
            ENTRIES[name](MODEL, params, x)
        message = str(refusal.value)
        assert message.startswith(("key = ", "key holds", "keys = ")), (key, message)
        assert "\n" not in message and "jax." in message


@vaejax.pytree
class Own(vaejax.Distribution):
    """A density of a user's own, which asks its key for nothing that says what is wrong."""

    reparameterised = True

    def sample(self, key):
        return jnp.zeros(()) + (0 if key is None else 1)

    def log_prob(self, value):
        return jnp.zeros(())


@pytest.mark.parametrize("method", ["sample", "sample_and_log_prob"])
def test_densities(method):
    prior: Any = vaejax.StandardNormal(2)
    for p in (prior((), None), Own()):
        for key in (*NO_KEYS, *SEVERAL):
            if key is None and isinstance(p, Own):
                continue  # which needs none
            with pytest.raises((TypeError, ValueError), match="^key "):
                getattr(p, method)(key)
        getattr(p, method)(jax.random.PRNGKey(0))
        jax.vmap(getattr(p, method))(SEVERAL[0])

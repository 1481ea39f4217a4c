"""The estimators of importance-weighted bounds at two samples of the frozen point."""

import vaejax

# Mean and variance of the gradient in mu, of the published tables.
AT_TWO_SAMPLES = {
    "IWAE": (vaejax.Pathwise(2, vaejax.iwae_bound), 0.1469185706, 1.9375918599),
    "DReG": (vaejax.DReG(2), 0.1469185706, 0.0288031386),
    "STL-IWAE": (vaejax.StickTheLanding(2, vaejax.iwae_bound), 0.3185591462, 0.1088374149),
    "RWS": (vaejax.RWS(2), 0.1716405756, 1.1279904056),
    "RWS-DReG": (vaejax.RWS(2, doubly_reparameterised=True), 0.1716405756, 0.0277107491),
    "VIMCO, geometric": (vaejax.VIMCO(2, "geometric"), 0.1469185706, 1.7266903756),
    "VIMCO, arithmetic": (vaejax.VIMCO(2, "arithmetic"), 0.1469185706, 1.7266903756),
    "OVIS, gamma 0": (vaejax.OVIS(2, gamma=0.0), 0.1469185706, 0.2258701799),
    "OVIS, gamma 1": (vaejax.OVIS(2, gamma=1.0), 0.3185591462, 0.4421592074),
}

"""Per example: the best q of a family, annealed importance sampling, and what the ELBO misses."""

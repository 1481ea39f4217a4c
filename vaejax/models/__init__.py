"""Models of one example: priors, conditionals, and what they make together."""

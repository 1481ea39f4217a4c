"""A run on disk: how a configuration becomes a model, its training, its evaluation, its report."""

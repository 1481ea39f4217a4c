"""The variance of a gradient, its sources and its price."""

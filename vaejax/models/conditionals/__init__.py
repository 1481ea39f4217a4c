"""Conditionals p(. | given), whose parameters a net gives: likelihoods, encoders, nodes of a
graph.
"""

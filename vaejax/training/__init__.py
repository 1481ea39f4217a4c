"""Maximising an objective by minibatch stochastic gradient ascent, many steps to one compiled
call.
"""

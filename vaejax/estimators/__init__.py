"""Gradient estimators: functions of one example whose value is a bound and whose gradient is the
estimator.
"""

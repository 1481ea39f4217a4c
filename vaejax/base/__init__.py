"""What everything stands on: values and pytrees, supports, checks, and functions of one example
mapped over many.
"""

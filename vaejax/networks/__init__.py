"""Nets of one example: layers, nets of vectors and of images."""

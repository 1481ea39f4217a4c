"""Data sets, what the model sees of them, and the checks that refuse what it cannot take."""

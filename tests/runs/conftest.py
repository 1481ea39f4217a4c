"""Each test of a run has a folder of its own."""

import jax
import pytest


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty working directory, and no compilation cache for the tests after this one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jax.config, "update", lambda *settings: None)
    return tmp_path


@pytest.fixture
def without_pictures(monkeypatch):
    """Of tests about something else: they are the dearest part of a small run."""
    monkeypatch.setattr("vaejax.runs.train.drawn", lambda figures, out: {})

"""What the rows of Kingma et al. 2014 have in common, and what they refuse."""

import dataclasses

import numpy as np
import pytest

from experiments.lib.work import Work
from experiments.reproduce.semi_supervised import TABLE, drawn_labels


@pytest.fixture
def work(tmp_path):
    def of(row, seed):
        folder = tmp_path / row / f"{seed}-try"
        folder.mkdir(parents=True)
        return Work(TABLE[row], seed, folder, shrink=100)

    return of


def test_all_rows_and_seeds_have_one_m1(work, tmp_path):
    """It is computed once, in a folder beside theirs; one of other settings is refused."""
    m1, times = TABLE["m1-svm"].m1, []
    assert m1 == TABLE["m1-m2"].m1

    def latents(row, seed, part=m1):
        return work(row, seed).beside(part, "m1").kept("latents", lambda: times.append(1) or 7.0)

    assert latents("m1-svm", 0) == latents("m1-svm", 1) == latents("m1-m2", 0) == 7.0
    assert len(times) == 1 and (tmp_path / "m1-try" / "latents.jsonl").exists()
    with pytest.raises(ValueError, match="m1-try is of other settings: row.latent_dim"):
        latents("m1-m2", 1, dataclasses.replace(m1, latent_dim=7))


@pytest.mark.parametrize("row", ["m2", "m1-m2"])
def test_there_are_as_many_seeds_as_draws(work, row):
    with pytest.raises(ValueError, match="seed = 5; labels are drawn 5 times: give 0 to 4"):
        TABLE[row].training(work(row, 5), 5)


def test_labels_are_ten_of_each_class_and_another_draw_for_each_seed(work, monkeypatch):
    """On the digits, which need no folder of data."""
    row = work("supervised", 0)
    dataset = row.dataset("digits")
    monkeypatch.setattr(row, "dataset", lambda name, valid: dataset)
    first, second = (drawn_labels(row, seed) for seed in (0, 1))
    np.testing.assert_array_equal(first.y.sum(axis=0), np.full(10, 10))
    np.testing.assert_array_equal(first.y.argmax(1), dataset.train.labels[first.chosen])
    assert len(np.unique(first.chosen)) == 100
    assert set(first.chosen) != set(second.chosen)

"""Your own data: arrays, files and folders, as a data set in three splits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vaejax.base.checks import SEEDS, require_in
from vaejax.base.files import absolute_path
from vaejax.data.base import Dataset, Split
from vaejax.data.files import read_npy, read_npz
from vaejax.data.foreign import as_array
from vaejax.data.image_folders import read_image_folder
from vaejax.data.splits import (
    SPLITS_HELD_OUT,
    TENTH,
    in_three_splits,
    require_not_brought,
    require_share,
)
from vaejax.data.stored import checked_arrays, settled_maximum
from vaejax.data.tables import DELIMITERS, read_table

FILES = (".npz", ".npy", *DELIMITERS)


def dataset(
    images: Any,
    labels: Any = None,
    *,
    valid: Any = None,
    test: Any = None,
    maximum: float | None = None,
    seed: int = 0,
    name: str = "data",
) -> Dataset:
    """Arrays of your own as a `Dataset`, by the checks and the rule of `vaejax train --data`.

        data = vaejax.dataset(images, labels)
        data = vaejax.dataset(images, valid=1_000, test=(test_images, test_labels))

    images  [n, height, width], with channels last, or vectors [n, columns]
    labels  [n] whole numbers, or None
    valid, test  a fraction of the images or a count, held out in the order that `seed` gives (None
        is a tenth); or the split itself, images or a pair (images, labels)
    maximum  the largest value that a pixel can have. Else it is 1 where all values are in [0, 1],
        and 255 of bytes; all else are real numbers, and `Dataset.maximum` is None

    `prepare_pixels(data, policy)` says what a model sees of it. Raises ValueError for what is no
    number, for splits of several shapes or dtypes, and for a maximum that the values contradict.
    """
    require_in(seed, "seed", SEEDS)
    arrays = {"x_train": as_array(images, "images")}
    if labels is not None:
        arrays["y_train"] = as_array(labels, "labels")
    asked: dict[str, float | None] = {}
    for part, said in {"valid": valid, "test": test}.items():
        if said is None or (not isinstance(said, tuple) and np.ndim(said) == 0):
            asked[part] = said
            continue
        if isinstance(said, tuple) and len(said) not in (1, 2):
            raise ValueError(
                f"{part} is a tuple of {len(said)}; give a fraction, a count, images, or (images,"
                " labels)"
            )
        split = Split(*said) if isinstance(said, tuple) else Split(said)
        arrays[f"x_{part}"] = as_array(split.images, part)
        if split.labels is not None:
            arrays[f"y_{part}"] = as_array(split.labels, f"labels of {part}")
    for part, share in asked.items():
        if share is not None:
            require_share(share, part)
    arrays = {key: np.asarray(array) for key, array in arrays.items()}
    return own_dataset(name, arrays, name, asked, maximum, seed)


def own_dataset(
    name: str,
    arrays: Mapping[str, np.ndarray],
    source: str,
    asked: Mapping[str, float | None],
    maximum: float | None,
    seed: int,
) -> Dataset:
    """x_train and its kin as a data set; a share that is asked for is None where it is a tenth."""
    arrays = checked_arrays(dict(arrays), source)
    dtype = arrays["x_train"].dtype
    largest = settled_maximum(arrays, source, str(dtype), _usual_maximum(dtype), maximum)
    require_not_brought(asked, arrays, source)
    shares = {part: asked.get(part) or TENTH for part in SPLITS_HELD_OUT}
    split = in_three_splits(name, arrays, source, shares, largest, seed)
    return split._replace(source=f"{split.source}; {_values(arrays, largest)}")


def _usual_maximum(dtype: np.dtype) -> float | None:
    """That of pixels of so many bits; None of other numbers, which are what they are."""
    return float(np.iinfo(dtype).max) if dtype in (np.uint8, np.uint16) else None


def _values(arrays: Mapping[str, np.ndarray], maximum: float | None) -> str:
    """The shape of an example, and what kind of numbers it holds, in words."""
    images = [array for key, array in arrays.items() if key.startswith("x_")]
    low, high = min(float(x.min()) for x in images), max(float(x.max()) for x in images)
    shape = "x".join(map(str, images[0].shape[1:]))
    kind = "real numbers" if maximum is None else f"pixels 0..{maximum:g}"
    return f"each {shape} of {images[0].dtype} in [{low:g}, {high:g}], {kind}"


# Files and folders.


def is_path(name: str) -> bool:
    """Whether a data set is named by its file or folder, rather than by the name of a known set."""
    if name.startswith("tfds:"):
        return False
    return "/" in name or "\\" in name or Path(name).suffix.lower() in FILES or name in (".", "..")


def absolute(name: str) -> str:
    """The name of a data set, of which a path leads to the same place from everywhere."""
    return str(absolute_path(name)) if is_path(name) else name


def short_name(name: str) -> str:
    """How a title calls a data set: by its name, or that of its file or folder."""
    return Path(name).name if is_path(name) else name


def path_of(name: str, folder: str | Path | None = None) -> Path:
    """The file or folder of this name; where it was moved to, `folder` holds it now."""
    path = absolute_path(name)
    if folder is not None:
        path = absolute_path(folder) / path.name
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is not there; name the data's file or folder by --data, or, where it was"
            " moved, the folder that holds it now by --data-folder (data_folder=)"
        )
    return path


def read_path(path: Path, label: str | None = None) -> tuple[dict[str, np.ndarray], str]:
    """(x_train, y_train, x_valid, ..., where they were and what the labels are) of a file or folder
    of your own.

    .npz     x_train or images, and y_train, x_valid, x_test and their kin; or a single array
    .npy     a single array
    .csv     a table, whose column `label` has the labels; .tsv has tabs
    a folder PNG and JPEG files, in subfolders by split and by class
    """
    suffix = path.suffix.lower()
    if label is not None and (path.is_dir() or suffix not in DELIMITERS):
        raise ValueError(f"label = {label!r} names a column of a table, and {path} is none")
    told = ""
    if path.is_dir():
        arrays, told = read_image_folder(path)
    elif suffix == ".npz":
        arrays = read_npz(path, packed=path.stem.endswith("_packbits"))
    elif suffix == ".npy":
        arrays = read_npy(path)
    elif suffix in DELIMITERS:
        arrays, told = read_table(path, label)
    else:
        raise ValueError(f"{path} is none of {', '.join(FILES)} and no folder of images")
    return arrays, f"{path}; {told}" if told else str(path)

"""Data sets, as arrays in memory, from wherever they lie.

`load_dataset("mnist")` gives stored pixels in their own dtype; `prepare_pixels(dataset, "dynamic")`
says how they become x. The embedded digits (digits.npz) are the test part of "Optical Recognition
of Handwritten Digits" by E. Alpaydin and C. Kaynak, UCI Machine Learning Repository 1998,
doi:10.24432/C50P49, licence CC BY 4.0; 1,797 images of 8x8 pixels, 0..16, as scikit-learn ships
them.
"""

import os
import re
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vaejax.base.checks import SEEDS, require_in, unknown_name
from vaejax.base.files import absolute_path
from vaejax.data.base import Dataset
from vaejax.data.fetch import FETCHED, FOLDER_VARIABLE, fetched_folder
from vaejax.data.files import (
    AMAT,
    idx_files,
    read_amat_folder,
    read_idx_folder,
    read_mat,
    read_npz,
)
from vaejax.data.own import is_path, own_dataset, path_of, read_path
from vaejax.data.prepared import is_prepared, load_prepared
from vaejax.data.splits import TENTH, in_three_splits, require_not_brought, require_share
from vaejax.data.stored import checked_arrays, settled_maximum

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


class Facts(NamedTuple):
    """What the arrays themselves do not say: the largest value that a pixel can have, and the share
    that is held out for each split which the set does not bring.
    """

    maximum: float
    num_valid: float = TENTH
    num_test: float = TENTH
    size: tuple[int, int] | None = None  # of an image that is stored as a row


Stored = tuple[dict[str, np.ndarray], str]  # x_train, y_train, x_test, ..., and where they were

FACTS = {
    "digits": Facts(16, 200, 300),
    "mnist": Facts(255, 10_000, size=(28, 28)),
    "fashion_mnist": Facts(255, 10_000, size=(28, 28)),
    "binarized_mnist": Facts(1, 10_000, size=(28, 28)),
    "omniglot": Facts(255, 1_345, size=(28, 28)),
    "cifar10": Facts(255, 5_000),
}


def load_dataset(
    name: str,
    folder: str | Path | None = None,
    *,
    maximum: float | None = None,
    valid: float | None = None,
    test: float | None = None,
    seed: int = 0,
    label: str | None = None,
) -> Dataset:
    """The data set `name`: one of FACTS; "tfds:NAME" for any image set of TensorFlow Datasets; or
    the path of your own, a .npz, .npy, .csv or .tsv file or a folder of images (`read_path`).

    A name is tried in order: the digits inside the package; `folder` (or $VAEJAX_DATA), for
    NAME.npz or NAME_packbits.npz there or in a folder NAME/, or for the files in which it is
    published in NAME/ or NAME/raw/; what `vaejax data --fetch NAME` has fetched; for Fashion-MNIST
    the folder of Debian's dataset-fashion-mnist; TFDS, through a file that keeps what was decoded
    once ($VAEJAX_CACHE, or ~/.cache/vaejax). `Dataset.source` says where it was.

    A split that the set does not bring is drawn with `seed`: `valid` and `test` are fractions of
    the training examples, or counts; None takes what is usual of the set, or a tenth.

    `maximum` is the largest value that a pixel can have. Else it is 1 where none is above 1
    (booleans, bits, floats), else that of FACTS, and ValueError where the pixels contradict it.
    Your own data that are neither bytes nor in [0, 1] are real numbers, unless it is said.

    >>> digits = vaejax.load_dataset("digits")
    >>> digits.train.images.shape, digits.maximum
    ((1297, 8, 8), 16)
    """
    require_in(seed, "seed", SEEDS)
    asked = {"valid": valid, "test": test}
    for part, share in asked.items():
        if share is not None:
            require_share(share, part)
    if is_path(name):
        path = path_of(name, folder)
        arrays, source = read_path(path, label)
        return own_dataset(path.name, arrays, source, asked, maximum, seed)
    if label is not None:
        raise ValueError(f"label = {label!r} names a column of a table, and {name} is none")
    tfds_name = name.removeprefix("tfds:")
    _require_name(name, tfds_name)
    places = _places(name, folder)
    stored = _in_package(name) or (_in_places(name, places) if name == tfds_name else None)
    arrays, source = stored or load_prepared(tfds_name, _how_to_get(name, places))
    arrays = checked_arrays(arrays, source)
    facts = FACTS.get(name, Facts(255))
    largest = settled_maximum(arrays, source, name, facts.maximum, maximum)
    require_not_brought(asked, arrays, source)
    usual = {"valid": facts.num_valid, "test": facts.num_test}
    shares = {part: asked[part] or usual[part] for part in usual}
    dataset = in_three_splits(name, arrays, source, shares, largest, seed)
    if largest == facts.maximum:
        return dataset
    return dataset._replace(source=f"{dataset.source}; pixels 0..{largest:g}")


def found_at(name: str, folder: str | Path | None = None) -> str | None:
    """Where a set of FACTS is on this machine; None where it is nowhere."""
    if name == "digits":
        return "the package"
    file = _file_in(name, _places(name, folder))
    if file is not None:
        return str(file.path)
    return "prepared by TFDS" if is_prepared(name) else None


def _require_name(name: str, tfds_name: str) -> None:
    """Raises ValueError for a name that is unknown, or that could lead out of a folder."""
    if name == tfds_name and name not in FACTS:
        if Path(name).is_dir():
            raise ValueError(f"data set {name!r} is a folder here; write {name}/")
        known = [*FACTS, "tfds:NAME", "FILE.npz", "FILE.csv", "FOLDER/"]
        raise ValueError(unknown_name("data set", name, known))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?", tfds_name):
        raise ValueError(
            f"data set {name!r}: a name is letters, digits, '_' and '-', with one '/config' at most"
        )


# Where a data set may lie: each gives its arrays and says where they were, or gives None.


def _in_package(name: str) -> Stored | None:
    if name != "digits":
        return None
    with np.load(str(files("vaejax.data") / "digits.npz"), allow_pickle=False) as stored:
        return {"x_train": stored["images"], "y_train": stored["labels"]}, "the package"


def _places(name: str, folder: str | Path | None) -> list[Path]:
    """The folders to look in; ValueError for one that is named and is none."""
    named = folder or os.environ.get(FOLDER_VARIABLE)
    places = [absolute_path(named)] if named else []
    for place in places:
        if not place.is_dir():
            origin = "" if folder else f" (${FOLDER_VARIABLE})"
            raise ValueError(f"data folder {str(named)!r}{origin} is not a folder; name one")
    places.append(fetched_folder())
    return [*places, DEBIAN_FASHION_MNIST] if name == "fashion_mnist" else places


class File(NamedTuple):
    """Where a set lies, and what reads it."""

    path: Path
    read: Callable[[Path], dict[str, np.ndarray]]


def _file_in(name: str, places: list[Path]) -> File | None:
    """The first of the files or folders in which the set can lie."""
    for place in places:
        own = _own_folders(place, name)
        for folder in (place, *own):
            for path in (folder / f"{name}.npz", folder / f"{name}_packbits.npz"):
                if path.is_file():
                    packed = path.stem.endswith("_packbits") or name.startswith("binarized")
                    return File(path, partial(read_npz, packed=packed))
            if name == "binarized_mnist" and (folder / AMAT["x_train"]).is_file():
                return File(folder, read_amat_folder)
            if name == "omniglot" and (folder / "chardata.mat").is_file():
                return File(folder / "chardata.mat", read_mat)
        for folder in own:
            if "x_train" in idx_files(folder):
                return File(folder, read_idx_folder)
    return None


def _in_places(name: str, places: list[Path]) -> Stored | None:
    file = _file_in(name, places)
    if file is None:
        return None
    return _in_shape(file.read(file.path), name), str(file.path)


def _own_folders(place: Path, name: str) -> list[Path]:
    """Those that the set has for itself: their names say so, as MNIST/raw/ and fashion-mnist/ do.
    The idx files of all sets have the same names.
    """
    inside = sorted(place.iterdir()) if place.is_dir() else []
    own = [path for path in (place, *inside) if path.is_dir() and _plain(path.name) == _plain(name)]
    if place.name == "raw" and _plain(place.parent.name) == _plain(name):
        own.append(place)
    return [folder for path in own for folder in (path, path / "raw")]


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _in_shape(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Images that are stored as rows of as many pixels as those of the set have."""
    size = FACTS[name].size
    rows = None if size is None else (size[0] * size[1],)
    return {
        key: x.reshape(-1, *size) if size and key[0] == "x" and x.shape[1:] == rows else x
        for key, x in arrays.items()
    }


def _how_to_get(name: str, places: list[Path]) -> str:
    """The sentences of the error for a set that is nowhere."""
    prepare = "prepare it once with TensorFlow: pip install 'vaejax[tfds-prepare]', and again"
    if name not in FACTS:
        return f"To have it, {prepare}"
    looked = ", ".join(str(place) for place in places)
    bare = [str(place) for place in places if idx_files(place)]
    if bare:
        looked += f"; the idx files in {bare[0]} do not say of which set they are: move them to"
        looked += f" {name}/ there"
    debian = "apt-get install dataset-fashion-mnist (Debian, Ubuntu); or put "
    put = debian if name == "fashion_mnist" else "put "
    published = f", or {', '.join(FETCHED[name].files)} in {name}/," if name in FETCHED else ""
    fetch = f"vaejax data --fetch {name}; or " if name in FETCHED else ""
    return (
        f"Looked in: {looked}. To have it, {fetch}{put}{name}.npz{published} in a folder that"
        f" --data-folder or ${FOLDER_VARIABLE} names; or {prepare}"
    )

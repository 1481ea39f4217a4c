"""Data sets of images, as arrays in memory, from wherever they lie.

`load_dataset("mnist")` gives stored pixels in their own dtype; `prepare_pixels(dataset, "dynamic")`
says how they become x. The embedded digits (digits.npz) are the test part of "Optical Recognition
of Handwritten Digits" by E. Alpaydin and C. Kaynak, UCI Machine Learning Repository 1998,
doi:10.24432/C50P49, licence CC BY 4.0; 1,797 images of 8x8 pixels, 0..16, as scikit-learn ships
them.
"""

import gzip
import importlib.util
import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaejax.base.checks import unknown_name
from vaejax.data.base import Dataset, Split

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FOLDER_VARIABLE, CACHE_VARIABLE = "VAEJAX_DATA", "VAEJAX_CACHE"


class Facts(NamedTuple):
    """What the arrays themselves do not say. `num_test` is 0 where a set brings its own test
    split.
    """

    maximum: float
    num_valid: int
    num_test: int = 0


Stored = tuple[dict[str, np.ndarray], str]  # x_train, y_train, x_test, ..., and where they were

FACTS = {
    "digits": Facts(16, 200, 300),
    "mnist": Facts(255, 10_000),
    "fashion_mnist": Facts(255, 10_000),
    "binarized_mnist": Facts(1, 10_000),
    "omniglot": Facts(255, 1_345),
    "cifar10": Facts(255, 5_000),
}


def load_dataset(name: str, folder: str | Path | None = None) -> Dataset:
    """The data set `name`: one of FACTS, or "tfds:NAME" for any image set of TensorFlow Datasets.

    Tried in order: the digits inside the package; `folder` (or $VAEJAX_DATA), for NAME.npz,
    NAME_packbits.npz or the four idx.gz files, there or in NAME/; for Fashion-MNIST the folder of
    Debian's dataset-fashion-mnist; what an earlier call decoded ($VAEJAX_CACHE, or
    ~/.cache/vaejax); TFDS. A split that the set does not bring is drawn with seed 0.
    """
    tfds_name = name.removeprefix("tfds:")
    _require_name(name, tfds_name)
    places = _places(name, folder)
    stored = _in_package(name) or (_in_places(name, places) if name == tfds_name else None)
    arrays, source = stored or _decoded(tfds_name, places)
    return _in_three_splits(name, arrays, source)


def _require_name(name: str, tfds_name: str) -> None:
    """Raises ValueError for a name that is unknown, or that could lead out of a folder."""
    if name == tfds_name and name not in FACTS:
        raise ValueError(unknown_name("data set", name, [*FACTS, "tfds:NAME"]))
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
    """The folders to look in."""
    folder = folder or os.environ.get(FOLDER_VARIABLE)
    places = [Path(folder).expanduser()] if folder else []
    return [*places, DEBIAN_FASHION_MNIST] if name == "fashion_mnist" else places


def _in_places(name: str, places: list[Path]) -> Stored | None:
    for place in places:
        for path in (place / f"{name}.npz", place / f"{name}_packbits.npz"):
            if path.exists():
                return _read_npz(path), str(path)
        for path in (place / name, place):
            if (path / "train-images-idx3-ubyte.gz").exists():
                return _read_idx_folder(path), str(path)
    return None


def _decoded(tfds_name: str, tried: list[Path]) -> Stored:
    """From TFDS, through a file that keeps what was decoded once."""
    folder = Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/vaejax").expanduser()
    cache = folder / f"{tfds_name.replace('/', '-')}.npz"
    source = f"TFDS, decoded in {cache}"
    if cache.exists():
        return _read_npz(cache), source
    arrays = _read_tfds(tfds_name, tried)
    folder.mkdir(parents=True, exist_ok=True)
    partial_file = cache.with_suffix(f".{os.getpid()}.tmp.npz")
    np.savez_compressed(partial_file, **arrays)  # pyright: ignore[reportArgumentType]
    partial_file.replace(cache)
    return arrays, source


def _in_three_splits(name: str, arrays: dict[str, np.ndarray], source: str) -> Dataset:
    """Out of x_train, x_valid, x_test and their labels: what is not there is drawn from train."""
    x, y = arrays["x_train"], arrays.get("y_train")
    facts = FACTS.get(name) or Facts(1 if x.max() <= 1 else 255, len(x) // 10)
    held_out = {"valid": facts.num_valid, "test": facts.num_test or len(x) // 10}
    brought = {
        part: Split(arrays[f"x_{part}"], arrays.get(f"y_{part}"))
        for part in held_out
        if f"x_{part}" in arrays
    }
    order, splits = np.random.default_rng(0).permutation(len(x)), dict(brought)
    for part, size in held_out.items():
        if part not in brought:
            rows, order = order[:size], order[size:]
            splits[part] = Split(x[rows], None if y is None else y[rows])
    drawn = [part for part in held_out if part not in brought]
    if drawn:
        splits["train"] = Split(x[order], None if y is None else y[order])
        origin = f"{' and '.join(drawn)} drawn from train with seed 0"
    else:
        splits["train"], origin = Split(x, y), "as the set brings them"
    sizes = " / ".join(str(len(splits[part].images)) for part in ("train", "valid", "test"))
    source = f"{source}; {sizes} train / valid / test, {origin}"
    return Dataset(name, **splits, maximum=facts.maximum, source=source)


# The formats.


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """x_train, y_train, ... or train, valid, test; images packed to bits by rows of 98 bytes are
    unpacked to 28x28.
    """
    with np.load(path, allow_pickle=False) as stored:
        arrays = {key if key[1:2] == "_" else f"x_{key}": stored[key] for key in stored.files}
    if "x_train" not in arrays:
        raise ValueError(f"{path} holds {sorted(arrays)}; it needs x_train, or train")
    for key, array in arrays.items():
        if key.startswith("x_") and array.shape[1:] == (98,):
            arrays[key] = np.unpackbits(array, axis=1).reshape(-1, 28, 28)
        elif key.startswith("x_") and array.shape[1:] == (784,):
            arrays[key] = array.reshape(-1, 28, 28)
    return arrays


def _read_idx_folder(folder: Path) -> dict[str, np.ndarray]:
    names = {
        "x_train": "train-images-idx3",
        "y_train": "train-labels-idx1",
        "x_test": "t10k-images-idx3",
        "y_test": "t10k-labels-idx1",
    }
    return {key: _read_idx(folder / f"{stem}-ubyte.gz") for key, stem in names.items()}


def _read_idx(path: Path) -> np.ndarray:
    """Big-endian header: two zero bytes, type 8 (uint8), the number of axes, their lengths; then
    the bytes.
    """
    with gzip.open(path) as file:
        content = file.read()
    num_axes = content[3]
    shape = np.frombuffer(content, ">u4", num_axes, offset=4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * num_axes)
    if content[:3] != b"\0\0\x08" or values.size != shape.prod():
        raise ValueError(
            f"{path} is not an idx file of bytes: header {content[:4].hex()}, {values.size} values"
            f" for shape {tuple(shape)}"
        )
    return values.reshape(shape)


def _read_tfds(name: str, tried: list[Path]) -> dict[str, np.ndarray]:
    """Every example through `tfds.data_source`, which reads a prepared array_record without
    TensorFlow.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, file_format="array_record")
    if not Path(builder.data_dir).exists():
        _require_tensorflow(name, tried)
        builder.download_and_prepare()
    arrays = {}
    for part, split in {"train": "train", "valid": "validation", "test": "test"}.items():
        if split not in builder.info.splits:
            continue
        source: Any = builder.as_data_source(split)  # pyright: ignore[reportCallIssue]
        examples = source.__getitems__(range(len(source)))
        if "image" not in examples[0]:
            raise ValueError(
                f"tfds:{name} has the features {sorted(examples[0])}; load_dataset needs one named"
                " 'image'"
            )
        images = np.stack([example["image"] for example in examples])
        arrays[f"x_{part}"] = images[..., 0] if images.shape[-1] == 1 else images
        if "label" in examples[0]:
            arrays[f"y_{part}"] = np.asarray([example["label"] for example in examples])
    return arrays


def _require_tensorflow(name: str, tried: list[Path]) -> None:
    """Raises FileNotFoundError, which says how to get the set, where it cannot be prepared here."""
    if importlib.util.find_spec("tensorflow") is not None:
        return
    nowhere = f"no folder given: see ${FOLDER_VARIABLE}"
    places = ", ".join(str(place) for place in tried) or nowhere
    raise FileNotFoundError(
        f"{name} is not here ({places}; TFDS has not prepared it). Put {name}.npz or its idx.gz"
        " files in a folder and name it, or prepare it once with TensorFlow: pip install"
        " 'vaejax[tfds-prepare]', then load it again"
    )

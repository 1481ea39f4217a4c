"""Image sets in files, .npz and idx: what a file is shows in its bytes, and what is wrong with it
is said with its path.
"""

import gzip
import math
import re
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

GZIP = b"\x1f\x8b"
PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")
OPENINGS = {  # how a file starts: what it is, and what to do
    b"": "empty: copy or download it anew",
    b"\x93NUMPY": "one array, as np.save writes it: np.savez(path, x_train=array)",
    GZIP: "compressed by gzip: gunzip it first",
    b"PK": "a zip archive: unpack it first",
    b"\x80": "a pickle, which is not loaded since it may run code: np.savez(path, x_train=array)",
    b"version https://git-lfs": "a pointer of Git LFS: git lfs pull",
}
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, NotImplementedError)

SPLITS = {"train": "train", "test": "test", "valid": "valid"}
SPLITS |= dict.fromkeys(("val", "validation", "dev"), "valid")
ROLES: dict[str, str] = dict.fromkeys(("x", "image", "images", "data", "features"), "x")
ROLES |= dict.fromkeys(("y", "label", "labels", "target", "targets"), "y")
PACKED = 98  # bytes of 28x28 bits

# Each file of an idx set: its name and the number of its axes. It may end in .gz, and be compressed
# or not whatever its name says: browsers unpack what they download.
IDX = {
    "x_train": ("train-images", 3),
    "y_train": ("train-labels", 1),
    "x_test": ("t10k-images", 3),
    "y_test": ("t10k-labels", 1),
}


def read_npz(path: Path, *, packed: bool) -> dict[str, np.ndarray]:
    """{x_train, y_train, x_valid, ...} of an .npz file. `packed`: rows of 98 bytes are 28x28 bits.

    Its names may be x_train, train_images, images or train; x_val or x_validation; y_ or labels. A
    single array may have any.
    """
    require_start(path, b"PK", ".npz")
    try:
        with np.load(path, allow_pickle=False) as file:
            names, stored = file.files, {name: file[name] for name in file.files}
    except DAMAGE as error:
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{path} holds Python objects, which are not loaded since they may run code: save"
                " arrays of numbers, all images of one shape"
            ) from None
        raise damaged(path, error) from None
    if len(names) > len(stored):  # as of a zip archive to which arrays were appended
        raise ValueError(f"{path} holds arrays of one name, {', '.join(names)}; save it anew")
    keys = {name: _key(name) for name in stored}
    if len(keys) == 1:
        keys = {name: key or "x_train" for name, key in keys.items()}
    wrong = [name for name, key in keys.items() if key is None]
    twice = [key for key, count in Counter(keys.values()).items() if count > 1]
    if wrong or twice or "x_train" not in keys.values():
        raise ValueError(
            f"{path} holds {', '.join(sorted(stored)) or 'nothing'}; it needs x_train (or images),"
            " and may have y_train (or labels), x_valid, y_valid, x_test and y_test, each once, and"
            " nothing else"
        )
    arrays = {str(keys[name]): array for name, array in stored.items()}
    return {key: unpacked(a) if packed and key[0] == "x" else a for key, a in arrays.items()}


def _key(name: str) -> str | None:
    """x_valid for val_images and its kin, x_train for images; None for what is no name of an array
    of a set.
    """
    words = name.lower().split("_")
    parts = [SPLITS[word] for word in words if word in SPLITS]
    roles = [ROLES[word] for word in words if word in ROLES]
    if len(parts) > 1 or len(roles) > 1 or len(parts) + len(roles) != len(words):
        return None
    return f"{roles[0] if roles else 'x'}_{parts[0] if parts else 'train'}"


def read_npy(path: Path) -> dict[str, np.ndarray]:
    """{x_train: the array} of a file of np.save."""
    require_start(path, b"\x93NUMPY", ".npy")
    try:
        with path.open("rb") as file:
            array, rest = np.load(file, allow_pickle=False), file.read(1)
    except DAMAGE as error:
        raise damaged(path, error) from None
    if rest:
        raise ValueError(
            f"{path} goes on after its array of shape {array.shape}: an .npy file has one, and"
            " np.savez(path, x_train=..., x_test=...) saves several"
        )
    return {"x_train": array}


BITS_LINE = re.compile(rb"(?:[01] ){783}[01] ?\r?\n")
AMAT = {f"x_{part}": f"binarized_mnist_{part}.amat" for part in ("train", "valid", "test")}


def read_amat_folder(folder: Path) -> dict[str, np.ndarray]:
    """{x_train, x_valid, x_test} of the static binarised MNIST as it is published: a line of 784
    digits 0 and 1 for each image.
    """
    missing = [name for name in AMAT.values() if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder} has no {' and no '.join(missing)}; put all three files there")
    return {key: read_amat(folder / name) for key, name in AMAT.items()}


def read_amat(path: Path) -> np.ndarray:
    """[n, 28, 28] bits of lines of digits."""
    content = path.read_bytes()
    digits = np.frombuffer(content.translate(None, b" \r\n"), np.uint8) - ord("0")
    if not BITS_LINE.match(content) or digits.size % 784 or digits.max() > 1:
        raise ValueError(f"{path} is {kind_of(content[:64])} (it has no lines of 784 bits)")
    return digits.reshape(-1, 28, 28)


def read_mat(path: Path) -> dict[str, np.ndarray]:
    """{x_train, x_test} of the 28x28 Omniglot of Burda et al. 2016, chardata.mat: its `data` and
    `testdata` have a column for each image, whose pixels are stored column by column.
    """
    from scipy.io import loadmat

    try:
        stored = loadmat(path)
        pairs = {"x_train": stored["data"], "x_test": stored["testdata"]}
    except (*DAMAGE, OSError, TypeError) as error:
        raise damaged(path, error) from None
    return {key: columns.T.reshape(-1, 28, 28).swapaxes(1, 2) for key, columns in pairs.items()}


def unpacked(images: np.ndarray) -> np.ndarray:
    """28x28 pixels of 0 and 1 of rows of 98 bytes; all else as it is."""
    if images.dtype != np.uint8 or images.shape[1:] != (PACKED,):
        return images
    return np.unpackbits(images, axis=1).reshape(-1, 28, 28)


def idx_files(folder: Path) -> dict[str, Path]:
    """{x_train, y_train, ...: its file} of those that a folder has."""
    paths = {}
    for key, (stem, num_axes) in IDX.items():
        names = [f"{stem}{mark}idx{num_axes}-ubyte{end}" for mark in "-." for end in (".gz", "")]
        files = [folder / name for name in names if (folder / name).is_file()]
        if files:
            paths[key] = files[0]
    return paths


def read_idx_folder(folder: Path) -> dict[str, np.ndarray]:
    """The four arrays of an idx set; ValueError where a file is missing or damaged."""
    paths = idx_files(folder)
    missing = [f"{stem}-idx{n}-ubyte" for key, (stem, n) in IDX.items() if key not in paths]
    if missing:
        raise ValueError(f"{folder} has no {' and no '.join(missing)}; put all four files there")
    return {key: read_idx(path) for key, path in paths.items()}


def read_idx(path: Path) -> np.ndarray:
    """Big-endian header: two zero bytes, type 8 (uint8), the number of axes, their lengths; then
    the bytes.
    """
    content = path.read_bytes()
    if content.startswith(GZIP):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise damaged(path, error) from None
    if content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise ValueError(f"{path} is {kind_of(content)} (it is not an idx file of bytes)")
    shape = np.frombuffer(content, ">u4", content[3], offset=4).tolist()
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])
    if values.size != math.prod(shape):
        raise ValueError(
            f"{path} is cut off or damaged: {values.size} bytes for shape {tuple(shape)}; copy or"
            " download it anew (it is not a whole idx file of bytes)"
        )
    return values.reshape(shape)


def require_start(path: Path, start: bytes, kind: str) -> None:
    """Raises ValueError for a file that does not start as its kind does."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head.startswith(start):
        raise ValueError(f"{path} is {kind_of(head)} (it is no {kind} file)")


def kind_of(head: bytes) -> str:
    """What a file is by its first bytes, and what to do."""
    if head.lstrip().lower().startswith(PAGES):
        return "a page of HTML, as of an error or a login: download the file itself"
    known = [text for start, text in OPENINGS.items() if head.startswith(start) and bool(start)]
    if not head:
        return OPENINGS[b""]
    if not known:
        return f"something else, it starts with {head[:4]!r}: replace it"
    return known[0]


def damaged(path: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:80] or type(error).__name__
    return ValueError(f"{path} is cut off or damaged ({reason}); copy or download it anew")

"""The usual sets from their public addresses, each file held against its checksum.

The SHA-256 values are those that TensorFlow Datasets carries for the same addresses. Those of the
binarised MNIST were found anew from its bits. TFDS has no checksum of Omniglot at 28x28: the one
here is the name that Git gives the file in the tree of that commit, a SHA-1 of its contents.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from vaejax.base.checks import unknown_name
from vaejax.base.files import absolute_path
from vaejax.data.prepared import cache_folder

FOLDER_VARIABLE = "VAEJAX_DATA"
GIT = "git:"  # a checksum that is the name of a blob


class Published(NamedTuple):
    """The address that a set's files are beneath, and {file: its checksum}."""

    address: str
    files: Mapping[str, str]


def _idx(train_images: str, train_labels: str, test_images: str, test_labels: str) -> dict:
    return {
        "train-images-idx3-ubyte.gz": train_images,
        "train-labels-idx1-ubyte.gz": train_labels,
        "t10k-images-idx3-ubyte.gz": test_images,
        "t10k-labels-idx1-ubyte.gz": test_labels,
    }


FETCHED = {
    "mnist": Published(
        "https://storage.googleapis.com/cvdf-datasets/mnist",
        _idx(
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    "fashion_mnist": Published(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        _idx(
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
    "binarized_mnist": Published(
        "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist",
        {
            "binarized_mnist_train.amat": (
                "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d"
            ),
            "binarized_mnist_valid.amat": (
                "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2"
            ),
            "binarized_mnist_test.amat": (
                "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c"
            ),
        },
    ),
    "omniglot": Published(
        "https://raw.githubusercontent.com/yburda/iwae"
        "/78a6075484bd7dd6f47a4bb9880d2295bc7a5220/datasets/OMNIGLOT",
        {"chardata.mat": GIT + "016a3536ffe5e1d38e42563a18d7a78bfaf643ec"},
    ),
}


def fetched_folder() -> Path:
    """Where fetched sets lie."""
    return cache_folder() / "data"


def fetch_dataset(
    name: str, folder: str | Path | None = None, *, mirror: str | None = None
) -> list[Path]:
    """Fetches the files of a set into NAME/ of a folder, and returns their paths: those that are
    there are not fetched again. `load_dataset` then finds them.

    The folder is else $VAEJAX_DATA, else one in vaejax's cache. `mirror` is another address that
    has the files. Raises ValueError for a file whose checksum is another, and OSError, which says
    which file to put where, where an address cannot be reached.
    """
    if name not in FETCHED:
        raise ValueError(unknown_name("data set to fetch", name, list(FETCHED)))
    named = folder or os.environ.get(FOLDER_VARIABLE)
    place = absolute_path(named) if named else fetched_folder()
    published = FETCHED[name]
    address = published.address if mirror is None else mirror.rstrip("/")
    return fetch_files(Published(address, published.files), place / name)


def fetch_files(published: Published, folder: Path) -> list[Path]:
    """Each file in a folder, fetched unless it is there, with the checksum that it must have."""
    import pooch

    pooch.get_logger().setLevel("WARNING")
    paths = []
    for file, checksum in published.files.items():
        known = None if checksum.startswith(GIT) else f"sha256:{checksum}"
        url = f"{published.address}/{file}"
        try:
            path = Path(pooch.retrieve(url, known, fname=file, path=folder, progressbar=True))
        except OSError as error:
            reason = " ".join(str(error).split())[:80]
            raise OSError(
                f"{url} cannot be fetched ({reason}); put {file} in {folder} by hand, or name"
                " another address by --mirror"
            ) from None
        if known is None and (seen := _name_of_blob(path)) != checksum:
            path.unlink()
            raise ValueError(
                f"{url} is not the published file: its checksum is {seen}, and not {checksum};"
                " name an address that has the published one by --mirror"
            )
        paths.append(path)
    return paths


def _name_of_blob(path: Path) -> str:
    """What Git calls a file: the SHA-1 of its size and its contents."""
    content = path.read_bytes()
    return GIT + hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324

"""Files that stay on disk: what of them is in memory is what was asked for."""

import zipfile
from pathlib import Path

import numpy as np

from vaejax.data.files import DAMAGE, damaged, require_start
from vaejax.data.image_folders import image_like, images_of, read_image
from vaejax.data.sources import RandomAccess

LOCAL_HEADER = 30  # bytes before the name and the extra field of a file in a zip archive


class UnmappableError(ValueError):
    """What lies in a file has no place of its own there."""


class ImageFolder(RandomAccess):
    """The PNG and JPEG files of a folder and its subfolders, in the order of their names, each read
    when it is asked for: arrays [h, w] of grey or [h, w, 3], all of the size of the first.

    `num_threads` of them are read at once. `paths` are the files, [n].
    """

    def __init__(self, folder: str | Path, num_threads: int = 4):
        self.paths = images_of(Path(folder))
        self._first = self.paths[0], read_image(self.paths[0])
        super().__init__(self.paths, self._image, num_threads)

    def _image(self, path: Path) -> np.ndarray:
        return image_like(self._first, path)


def open_npz(path: str | Path) -> dict[str, np.ndarray]:
    """{name: array} of an .npz file, each left on disk and mapped into memory.

    ValueError for an array that `np.savez_compressed` compressed, which has no rows on disk, and
    for a damaged file.
    """
    path = Path(path)
    require_start(path, b"PK", ".npz")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        arrays = {member.filename.removesuffix(".npy"): _mapped(path, member) for member in members}
    except UnmappableError:
        raise
    except DAMAGE as error:
        raise damaged(path, error) from None
    return arrays


def _mapped(path: Path, member: zipfile.ZipInfo) -> np.ndarray:
    """One array of an archive, from the place of its bytes in it."""
    name = member.filename
    if member.compress_type != zipfile.ZIP_STORED:
        raise UnmappableError(
            f"{path} has {name} compressed, so none of its rows can be read alone: write it by"
            " np.savez, or load it whole by np.load"
        )
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(LOCAL_HEADER)
        lengths = np.frombuffer(header, "<u2", 2, LOCAL_HEADER - 4)  # of its name and extra field
        file.seek(int(lengths.sum()), 1)
        is_first_version = np.lib.format.read_magic(file) == (1, 0)
        read_header = (
            np.lib.format.read_array_header_1_0
            if is_first_version
            else np.lib.format.read_array_header_2_0
        )
        shape, is_fortran, dtype = read_header(file)
        start = file.tell()
    if dtype.hasobject:
        raise UnmappableError(f"{path} has Python objects in {name}: save arrays of numbers")
    return np.memmap(path, dtype, "r", start, shape, "F" if is_fortran else "C")

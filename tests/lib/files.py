"""Files of images, as data sets come."""

import gzip


def idx_bytes(array):
    """A header and the bytes."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def write_idx(path, array, *, compressed=True):
    content = idx_bytes(array)
    path.write_bytes(gzip.compress(content, 1) if compressed else content)


def write_idx_set(folder, train, test):
    """The four files; the label of an image is its first pixel."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, images in {"train": train, "t10k": test}.items():
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", images[:, 0, 0])

"""Which data sets there are, where each is on this machine, and how to have it."""

from dataclasses import dataclass
from typing import Any

from vaejax.data.fetch import FETCHED, fetch_dataset
from vaejax.data.load import FACTS, found_at
from vaejax.runs.config import Configuration, check_config
from vaejax.runs.table import markdown


@dataclass(frozen=True)
class DataConfig(Configuration):
    """Lists the data sets that have a name, where each is on this machine, and how to have it;
    fetches those that --fetch names.
    """

    fetch: tuple[str, ...] = ()
    """mnist, fashion_mnist, binarized_mnist or omniglot, from their public addresses, each file
    held against its checksum.
    """
    data_folder: str | None = None
    """Where the sets lie, and where they are fetched to; else $VAEJAX_DATA, else vaejax's cache."""
    mirror: str | None = None
    """Another address that has the files of the set."""

    def check_together(self) -> None:
        if self.mirror is not None and len(self.fetch) != 1:
            raise ValueError("--mirror is the address of one set; name it by --fetch")


def list_data(config: DataConfig) -> dict[str, Any]:
    """Fetches what is asked for, prints the table of all sets, and returns where they are."""
    check_config(config)
    for name in config.fetch:
        fetch_dataset(name, config.data_folder, mirror=config.mirror)
    places: dict[str, Any] = {name: found_at(name, config.data_folder) for name in FACTS}
    rows = [(name, place or "no", "" if place else _how(name)) for name, place in places.items()]
    print(markdown(("data set", "on this machine", "how to have it"), rows))
    print(
        "\ntfds:NAME is any image set of TensorFlow Datasets; your own data are --data FILE.npz,"
        " FILE.csv or FOLDER/."
    )
    return places


def _how(name: str) -> str:
    """What to do for a set that is nowhere."""
    own = f"{name}.npz in a folder, and --data-folder FOLDER"
    return f"vaejax data --fetch {name}; or {own}" if name in FETCHED else own

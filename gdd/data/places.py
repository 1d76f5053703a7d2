"""Where datasets lie, found without torch and without reading them, so that a missing one is refused at once."""

from pathlib import Path
from typing import Literal, NamedTuple

from gdd.config import ConfigError, nearest

Kind = Literal["digits", "torchvision", "npz", "folder"]


class Files(NamedTuple):
    folder: str  # below the root
    names: tuple[str, ...]


_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_CIFAR10_FILES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
# torchvision's datasets, where it looks for them.
TORCHVISION = {
    "mnist": Files("MNIST/raw", _IDX_FILES),
    "fashion_mnist": Files("FashionMNIST/raw", _IDX_FILES),
    "cifar10": Files("cifar-10-batches-py", _CIFAR10_FILES),
    "cifar100": Files("cifar-100-python", ("train", "test", "meta")),
    "svhn": Files("", ("train_32x32.mat", "test_32x32.mat")),
}
NAMES = ("digits", *TORCHVISION, "folder")


def missing_file(name: str, root: Path) -> Path | None:
    """Return a file that one of torchvision's datasets lacks below `root`, or None."""
    folder, names = TORCHVISION[name]
    return next((path for path in (root / folder / file for file in names) if not path.is_file()), None)


def locate(name: str, root: Path, download: bool = False) -> tuple[Kind, Path]:
    """Return how a dataset is read, and its folder or file; of torchvision's, `root`.

    Args:
        name: as in `gdd.data.readers.open_dataset`, like the others.
        root: below which the named datasets lie.
        download: whether a dataset of torchvision may be missing.

    Raises:
        ConfigError: the name is unknown, or nothing is there.
    """
    if name == "digits":
        return "digits", root
    if name == "cifar10" and (root / name / "train").is_dir():
        return "folder", root / name
    if name in TORCHVISION:
        missing = missing_file(name, root)
        if missing is not None and not download:
            raise ConfigError(
                f"{name} was not found: looked for {missing}; add --data.download true to download it, "
                "or set --data.root to the folder that holds it"
            )
        return "torchvision", root
    if name.endswith(".npz"):
        if not Path(name).is_file():
            raise ConfigError(f"{name} was not found; set --data.name to an existing .npz file")
        return "npz", Path(name)
    folder = root if name == "folder" else Path(name)
    if name and folder.is_dir():  # Path("") is the folder one stands in
        return "folder", folder
    if name == "folder":
        raise ConfigError(f"the image folder was not found: looked for {root}; set --data.root to it")
    hint = nearest(name, NAMES)
    raise ConfigError(f"data.name is {name!r}, expected {', '.join(NAMES)}, an existing folder or an .npz file{hint}")

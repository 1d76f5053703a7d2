"""What a dataset is: its shape, its classes, its normalisation, and whether mirroring keeps the label."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class DatasetSpec:
    """Facts about one image classification dataset.

    Args:
        name: registry name, or the folder's or file's name for a user's own data.
        channels: 1 or 3.
        height: pixels.
        width: pixels.
        class_names: in index order; a stored set of other classes is refused.
        mean: per channel, of pixels scaled to [0, 1].
        std: per channel, of pixels scaled to [0, 1].
        flip: whether a mirrored image still belongs to its class.
    """

    name: str
    channels: int
    height: int
    width: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DatasetSpec":
        """Rebuild a spec from JSON, where tuples have become lists."""
        lists = {key: tuple(values[key]) for key in ("class_names", "mean", "std")}
        return cls(**{**values, **lists})


@dataclass(frozen=True)
class Known:
    """The field's constants for a public dataset (DatasetCondensation, utils.py)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool


KNOWN = {
    "mnist": Known((0.1307,), (0.3081,), False),
    "fashion_mnist": Known((0.2861,), (0.3530,), True),
    "svhn": Known((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970), False),
    "cifar10": Known((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), True),
    "cifar100": Known((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762), True),
}

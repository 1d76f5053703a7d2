"""What a dataset is: shape, classes, normalisation, and which augmentations keep its labels; without torch."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gdd.config import ConfigError, did_you_mean, require

MAX_PIXELS = 4096 * 4096


@dataclass(frozen=True)
class DatasetSpec:
    """Facts about one image classification dataset; ConfigError if they are of none."""

    name: str  # registry name, or the folder's or file's name for a user's own data
    channels: int  # 1 or 3
    height: int  # pixels
    width: int  # pixels
    class_names: tuple[str, ...]  # in index order; a stored set of other classes is refused
    mean: tuple[float, ...]  # per channel, of pixels scaled to [0, 1]
    std: tuple[float, ...]  # per channel, of pixels scaled to [0, 1]
    flip: bool  # whether a mirrored image still belongs to its class

    def __post_init__(self) -> None:
        require(self.channels in (1, 3), "channels", self.channels, "1 or 3")
        sides, names = (self.height, self.width), self.class_names
        valid = min(sides) >= 1 and math.prod(sides) <= MAX_PIXELS
        require(valid, "height and width", sides, f"at least 1 and at most {MAX_PIXELS} pixels")
        for what, text in (("name", self.name), *(("class name", name) for name in names)):
            require(_is_utf8(text), what, text.encode("utf-8", "backslashreplace").decode(), "another: it is not UTF-8")
        distinct = len(set(names)) == len(names) >= 1 and max(map(len, names)) <= 255
        require(distinct, "class_names", f"{len(names)} texts", "different ones of at most 255 characters")
        for key, numbers, low in (("mean", self.mean, -math.inf), ("std", self.std, 0)):
            valid = len(numbers) == self.channels and all(low < value < math.inf for value in numbers)
            require(valid, key, numbers, f"{self.channels} finite numbers{' above 0' * (low == 0)}")

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def are_numbers_as_text(self) -> bool:
        """Whether the classes are called by whole numbers in another order than that of the numbers, as 0, 1, 10, 2."""
        if not all(name.isdecimal() for name in self.class_names):
            return False
        numbers = [int(name) for name in self.class_names]
        return numbers != sorted(numbers)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    @property
    def in_words(self) -> str:
        """Its name, classes, colour and size."""
        colour = "grey" if self.channels == 1 else "colour"
        return f"{self.name}: {self.num_classes} classes, {colour} images of {self.height} × {self.width} pixels"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def labels_of(self, classes: Sequence[str | int] | None) -> list[int]:
        """Return the numbers of classes that a user calls by name or number, in the same order; of none, all.

        Raises:
            ConfigError: one is unknown or stands twice, or there is no class at all.
        """
        if classes is None:
            return list(range(self.num_classes))
        known = {name: label for label, name in enumerate(self.class_names)} | {n: n for n in range(self.num_classes)}
        try:
            labels = [] if isinstance(classes, str) else [known[value] for value in classes]
        except (KeyError, TypeError):
            labels = []
        expected = f"a list of different ones of {self.name}, each by its name or as 0 to {self.num_classes - 1}"
        require(len({*labels}) == len(labels) >= 1, "classes", classes, expected)
        return labels


def union(specs: Sequence[DatasetSpec]) -> DatasetSpec:
    """Return what holds for several datasets together, whose classes stand in the order in which they first appear.

    Mean and standard deviation are those of equally many images of every class, from all that have it.

    Raises:
        ConfigError: their images differ in shape.
    """
    first, classes = specs[0], Counter(name for spec in specs for name in spec.class_names)
    for spec in specs:
        if spec.shape != first.shape:
            raise ConfigError(f"images of {spec.name} are {spec.shape}, expected {first.shape} as of {first.name}")
    shares = [sum(1 / classes[name] for name in spec.class_names) / len(classes) for spec in specs]
    means, stds = [], []
    for channel in range(first.channels):
        mean = sum(share * spec.mean[channel] for share, spec in zip(shares, specs, strict=True))
        spreads = [math.hypot(spec.std[channel], spec.mean[channel] - mean) for spec in specs]
        means.append(mean)
        stds.append(math.hypot(*(math.sqrt(share) * spread for share, spread in zip(shares, spreads, strict=True))))
    name, flip = " + ".join(dict.fromkeys(spec.name for spec in specs)), all(spec.flip for spec in specs)
    return DatasetSpec(name, *first.shape, tuple(classes), tuple(means), tuple(stds), flip)


def order_of_numbers(class_names: Sequence[str]) -> str | None:
    """Return a sentence if all classes are called by whole numbers, but not in the order of numbers, else None."""
    if not all(name.isdecimal() for name in class_names):
        return None
    numbers = [int(name) for name in class_names]
    moved = (label for label, pair in enumerate(zip(numbers, sorted(numbers), strict=True)) if len({*pair}) > 1)
    label = next(moved, None)
    if label is None:
        return None
    return (
        f"classes are called by numbers, but sorted as texts: label {label} is class {class_names[label]!r}; labels "
        "that count the classes as numbers mean other classes"
    )


def _is_utf8(text: str) -> bool:
    try:
        return text.encode() is not None
    except UnicodeEncodeError:  # halves of UTF-16, which stand for other bytes in the names of files
        return False


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
    "tiny_imagenet": Known((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), True),
    "cifar100": Known((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762), True),
}


OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")  # of DSA
DC = "dc"  # of DC: a crop, a scale or a rotation of its own for each image


def parse_strategy(text: str, flip: bool = True) -> tuple[str, ...]:
    """Read names joined by underscores, such as `color_crop_cutout_flip_scale_rotate`, or `none`.

    `flip` is dropped where mirroring does not keep the class; ConfigError if an operation is unknown or repeated.
    """
    if text == "none":
        return ()
    names, known = text.split("_"), (*OPERATIONS, DC)
    for name in names:
        if name not in known:
            raise ConfigError(
                f"unknown augmentation {name!r} in {text!r}, expected 'none' or some of "
                f"{', '.join(known)} joined by '_'{did_you_mean(name, known)}"
            )
        if names.count(name) > 1:
            raise ConfigError(f"augmentation {text!r} names {name!r} twice")
    return tuple(name for name in names if flip or name != "flip")


def dsa(flip: bool) -> tuple[str, ...]:
    """Return the operations of DSA; mirrors only where they keep the class."""
    return tuple(name for name in OPERATIONS if flip or name != "flip")

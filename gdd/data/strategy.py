"""Augmentations by name; without torch, so that a misspelt one is refused at once."""

from gdd.config import ConfigError, nearest

OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")


def parse_strategy(text: str, flip: bool = True) -> tuple[str, ...]:
    """Read names joined by underscores, such as `color_crop_cutout_flip_scale_rotate`, or `none`.

    Args:
        text: the names.
        flip: whether mirroring keeps the class; if not, `flip` is dropped from the result.

    Raises:
        ConfigError: an unknown or repeated operation.
    """
    if text == "none":
        return ()
    names = text.split("_")
    for name in names:
        if name not in OPERATIONS:
            raise ConfigError(
                f"unknown augmentation {name!r} in {text!r}, expected 'none' or some of "
                f"{', '.join(OPERATIONS)} joined by '_'{nearest(name, OPERATIONS)}"
            )
        if names.count(name) > 1:
            raise ConfigError(f"augmentation {text!r} names {name!r} twice")
    return tuple(name for name in names if flip or name != "flip")


def dsa(flip: bool) -> tuple[str, ...]:
    """Return the operations of DSA; mirrors only where they keep the class."""
    return tuple(name for name in OPERATIONS if flip or name != "flip")

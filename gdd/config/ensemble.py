"""Settings of the classifiers that judge samples."""

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from gdd.config.fields import STRICT, AtLeast1, AtLeast2, Positive


@dataclass(frozen=True, config=STRICT)
class EnsembleConfig:
    """Classifiers trained on real images, which filter, choose and label samples."""

    archs: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)] = ("convnet3-w32", "resnet10-bn-w16")
    """Their architectures; one that is named twice has two members of different seeds."""
    steps: AtLeast1 = 2000
    """Training steps of each, at least 1."""
    batch_size: AtLeast2 = 64
    """Real images per step, at least 2."""
    lr: Positive = 0.02
    """First learning rate of SGD, above 0; half a cosine takes it to 0."""
    augment: str = "crop"
    """Augmentation of each image by itself, such as color_crop; none switches it off."""

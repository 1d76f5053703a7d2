"""Settings of the rival, pixel-level matching, and of its pool of new networks."""

from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from gdd.config.errors import require
from gdd.config.fields import (
    STRICT,
    AtLeast0,
    AtLeast1,
    AtLeast1OrNull,
    Positive,
    PositiveOrNull,
    Share,
    ShareOrNull,
    without_effect,
)

PoolKind = Literal["main", "main+similar", "main+various", "total random"]


@dataclass(frozen=True, config=STRICT)
class MatchingPoolConfig:
    """The pools of Zhou et al. 2024, of which each iteration takes a new, untrained network."""

    kind: PoolKind = "main"
    """main alone, main+similar (random ConvNets, without pools if main has none), main+various, or total random (main
    and various alike)."""
    main: str = "convnet3"
    """The main model (Zhou et al.: ConvNet3)."""
    main_probability: Share = 0.9
    """Probability of the main model in main+similar and main+various, in [0, 1] (Zhou et al.: 0.9)."""
    main_probability_end: ShareOrNull = None
    """The same at the last iteration, in [0, 1], linear in between; null keeps it."""
    main_only: AtLeast0 = 0
    """Iterations at the start that use the main model alone, at least 0 (Zhou et al.: 501 in their code)."""
    similar_depth: AtLeast1 = 3
    """Depth of the random ConvNets of main+similar, at least 1 (Zhou et al.: 3 in the paper, 1 in the code)."""
    various: Annotated[tuple[str, ...], Field(min_length=1)] = ("lenet", "alexnet", "vgg11")
    """Other models of main+various and total random (Zhou et al.: LeNet, AlexNet, VGG11)."""


@dataclass(frozen=True, config=STRICT)
class MatchingConfig:
    """The rival: pixels optimised until a network's gradients, or its features, are those of real images."""

    ipc: AtLeast1 = 1
    """Images per class, at least 1."""
    iterations: AtLeast1 = 1000
    """Networks that the images are matched on one after the other, at least 1 (DC: 1000; DM: 20000)."""
    objective: Literal["gradient", "embedding"] = "gradient"
    """gradient matching (DC, DSA), or embedding: the mean features of each class (DM)."""
    distance: Literal["dc", "cos", "mse"] = "dc"
    """Between gradients: dc (1 - cosine of every output row, without 1-D parameters), cos or mse of all together."""
    outer: AtLeast1OrNull = None
    """Image updates per network, at least 1; null: DC's table by IPC (1, 10, 20, ... 50: 1, 10, 20, ... 50)."""
    inner: AtLeast1OrNull = None
    """Epochs on the set between two updates, at least 1; null: DC's table (1, 50, 25, 20, 15, 10)."""
    inner_first: bool = False
    """Whether a network also learns those epochs before its first comparison; DC's IPC 1 never trains it."""
    batch_real: AtLeast1 = 256
    """Real images of each class per update, at least 1 (DC: 256)."""
    batch_train: AtLeast1 = 256
    """Images per step of the inner epochs, at least 1 (DC: 256)."""
    lr_image: PositiveOrNull = None
    """Learning rate of the images in classifier space, above 0; null: 0.1 for gradient (DC), 1 for embedding (DM)."""
    lr_network: Positive = 0.01
    """Learning rate of the inner epochs, above 0 (DC: 0.01, no momentum)."""
    augment: Literal["none", "dsa"] = "none"
    """dsa: one random operation on the real and the synthetic images of a class alike (Zhao and Bilen 2021)."""
    init: Literal["noise", "real", "generator"] = "noise"
    """First images: normal noise (DC), random real images (DSA, DM), or samples of matching.generator."""
    generator: Path | None = without_effect(None)  # its hash counts instead
    """Run folder, file, zoo:NAME or hub:USER/NAME of the generator for init generator."""
    pool: MatchingPoolConfig = field(default_factory=MatchingPoolConfig)

    @model_validator(mode="after")
    def _belong_together(self) -> "MatchingConfig":
        named = (self.generator is not None) == (self.init == "generator")
        require(named, "matching.generator", self.generator, "a path with init generator only")
        if self.objective == "embedding":
            for name, default in (("distance", "dc"), ("outer", None), ("inner", None), ("inner_first", False)):
                value, expected = getattr(self, name), f"its default {default} with objective embedding"
                require(value == default, f"matching.{name}", value, expected)
        return self

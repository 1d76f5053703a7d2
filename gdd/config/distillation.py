"""Settings of the data and of everything that distils."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gdd.config.checks import is_number, require, require_above_0, require_at_least, require_types


@dataclass(frozen=True)
class DataConfig:
    """The real images."""

    name: str = "digits"
    """digits, mnist, fashion_mnist, cifar10, cifar100, svhn, folder, or a path to an image folder or an .npz file."""
    root: Path = Path("data")
    """Folder below which the named datasets lie; for `folder`, the folder itself."""
    size: tuple[int, int] | None = None
    """Height and width in pixels to resize to, at least 16; none keeps the images as they are."""
    channels: Literal[1, 3] | None = None
    """1 (grey) or 3 (RGB) to convert to; none keeps what the images have."""
    val_fraction: float = 0.1
    """Share of the training images carved out, by class, for every selection; above 0 and at most 0.5."""
    download: bool = False
    """Whether torchvision may fetch a missing dataset."""

    def __post_init__(self) -> None:
        require_types(self, "data")
        require(
            is_number(self.val_fraction) and 0 < self.val_fraction <= 0.5,
            "data.val_fraction",
            self.val_fraction,
            "above 0 and at most 0.5",
        )
        if self.size is not None:
            require(min(self.size) >= 16, "data.size", self.size, "a height and a width of at least 16 pixels")


@dataclass(frozen=True)
class GanConfig:
    """The conditional generator, its discriminator, and their adversarial loss; both stages use it."""

    width: int = 32
    """Channels of every hidden layer of generator and discriminator, at least 4 (DiM: 196)."""
    noise_dim: int = 100
    """Length of the normal noise vector, at least 1; the class is concatenated to it (DiM: 100)."""
    loss: Literal["wgan-gp", "hinge", "ns"] = "ns"
    """wgan-gp with the auxiliary class loss (DiM), or hinge or non-saturating with R1, both class-conditional."""
    aux_weight: float = 1.0
    """Weight of the auxiliary class loss of either network, at least 0 (DiM: 1)."""
    gradient_penalty: float = 10.0
    """Weight of the gradient penalty of wgan-gp, at least 0 (DiM: 10)."""
    r1: float = 0.2
    """Weight gamma of the R1 penalty gamma/2 |grad D|^2 of ns and hinge, at least 0; 0 switches it off."""
    r1_every: int = 16
    """Discriminator steps from one R1 penalty to the next, which is scaled by as much; at least 1."""
    beta1: float = 0.0
    """First decay of both Adam optimisers, in [0, 1) (DiM: 0)."""
    beta2: float = 0.99
    """Second decay of both Adam optimisers, in [0, 1) (DiM: 0.9)."""
    ema_decay: float = 0.99
    """Decay per step of the averaged generator that is sampled from, in [0, 1)."""
    augment: str = "none"
    """DiffAugment of what the discriminator sees, such as color_crop_cutout; none switches it off."""

    def __post_init__(self) -> None:
        require_types(self, "gan")
        require_at_least(self, "gan", 4, "width")
        require_at_least(self, "gan", 1, "noise_dim", "r1_every")
        require_at_least(self, "gan", 0, "aux_weight", "gradient_penalty", "r1")
        for name in ("beta1", "beta2", "ema_decay"):
            value = getattr(self, name)
            require(is_number(value) and 0 <= value < 1, f"gan.{name}", value, "a number in [0, 1)")


@dataclass(frozen=True)
class PretrainConfig:
    """Stage 1: the adversarial loss alone."""

    steps: int = 1500
    """Optimiser steps of each network, at least 1 (DiM: 58,500, that is 150 epochs of CIFAR-10)."""
    batch_size: int = 32
    """Images per step over all processes, at least 2 (DiM: 128)."""
    lr: float = 1e-3
    """Learning rate of both Adam optimisers, above 0 (DiM: 1e-4)."""

    def __post_init__(self) -> None:
        require_types(self, "pretrain")
        require_at_least(self, "pretrain", 1, "steps")
        require_at_least(self, "pretrain", 2, "batch_size")
        require_above_0(self, "pretrain", "lr")


PoolKind = Literal["members", "main", "main+similar", "main+various", "total random"]


@dataclass(frozen=True)
class PoolConfig:
    """The networks that distillation compares real and synthetic images with.

    Gradient matching takes a new, untrained network at every iteration; what members learn from real images, and
    for how long they live, is for skd.
    """

    kind: PoolKind | None = None
    """members, or the pools of Zhou et al. 2024: main alone, main+similar (random ConvNets), main+various,
    total random (main and various alike); none: members for skd, main for gradient_matching."""
    members: tuple[str, ...] = ("convnet3-w16", "resnet10-w8", "resnet18-w8")
    """Architectures of kind members, such as convnet3 or resnet18-bn-w32 (SKD: ConvNet3, ResNet10, ResNet18)."""
    weights: tuple[float, ...] = ()
    """Probability weight of each of pool.members, none below 0; empty means equal."""
    main: str = "convnet3"
    """Main model of the other kinds (Zhou et al.: ConvNet3)."""
    main_probability: float = 0.9
    """Probability of the main model in main+similar and main+various, in [0, 1] (Zhou et al.: 0.9)."""
    main_probability_end: float | None = None
    """The same at the last step, in [0, 1], linear in between; none keeps it."""
    main_only: int = 0
    """Steps at the start that use the main model alone, at least 0 (Zhou et al.: 501 in their code)."""
    similar_depth: int = 3
    """Depth of the random ConvNets of main+similar, at least 1 (Zhou et al.: 3 in the paper, 1 in the code)."""
    various: tuple[str, ...] = ("lenet", "alexnet", "vgg11")
    """Other models of main+various and total random (Zhou et al.: LeNet, AlexNet, VGG11)."""
    redraw_every: int = 200
    """Uses of a member after which it starts anew from random weights, at least 1 (DiM: 781, one epoch)."""
    steps_before: int = 16
    """Training steps on real images that a new member gets before its first use, at least 0 (DiM: 16)."""
    steps_between: int = 1
    """Training steps on real images before every further use, at least 0 (DiM: 16)."""
    max_accuracy: float = 1.0
    """Members stop learning while their accuracy on a fresh real batch is at least this, in (0, 1]."""
    batch_size: int = 64
    """Real images per training step of a member, at least 2 (DiM: 64)."""
    lr: float = 0.01
    """Learning rate of a member's SGD, above 0 (DiM: 0.01; momentum 0.9 and weight decay 5e-4 are fixed)."""

    def __post_init__(self) -> None:
        require_types(self, "pool")
        require(bool(self.various), "pool.various", self.various, "at least one architecture")
        for name in ("main_probability", "main_probability_end"):
            value = getattr(self, name)
            valid = value is None or (is_number(value) and 0 <= value <= 1)
            require(valid, f"pool.{name}", value, "a number in [0, 1]")
        require_at_least(self, "pool", 0, "main_only")
        require_at_least(self, "pool", 1, "similar_depth")
        require(bool(self.members), "pool.members", self.members, "at least one architecture")
        if self.weights:
            valid = all(is_number(weight) and weight >= 0 for weight in self.weights)
            valid = valid and len(self.weights) == len(self.members) and sum(self.weights) > 0
            expected = f"{len(self.members)} numbers of at least 0 that are not all 0, one per member"
            require(valid, "pool.weights", self.weights, expected)
        require_at_least(self, "pool", 1, "redraw_every")
        require_at_least(self, "pool", 0, "steps_before", "steps_between")
        require_at_least(self, "pool", 2, "batch_size")
        require(
            is_number(self.max_accuracy) and 0 < self.max_accuracy <= 1,
            "pool.max_accuracy",
            self.max_accuracy,
            "above 0 and at most 1",
        )
        require_above_0(self, "pool", "lr")


@dataclass(frozen=True)
class RefineConfig:
    """Stage 2: the adversarial loss plus self-knowledge distillation (SKD)."""

    pretrained: Path | None = None
    """Run folder of a finished stage 1; none runs stage 1 first, beside this stage's folder."""
    steps: int = 500
    """Optimiser steps of the generator, at least 1 (DiM: 78,100, that is 100 epochs of CIFAR-10)."""
    batch_size: int = 32
    """Images per step over all processes, at least 2 (DiM: 64)."""
    lr: float = 5e-4
    """Learning rate of both Adam optimisers, above 0 (DiM: 5e-6)."""
    match: Literal["kl", "log_mse"] = "kl"
    """kl between (standardized) logits (SKD), or log_mse between log-probabilities (DiM, without tau)."""
    standardize: bool = True
    """Whether kl standardizes each sample's logits over the classes first (SKD)."""
    tau: float = 2.0
    """Temperature of kl, above 0 (SKD: 2)."""
    tau_mode: Literal["divide", "multiply"] = "divide"
    """divide softens as the text of SKD means it; multiply is its printed formula."""
    weight: float = 0.01
    """Lambda, weight of the matching loss, at least 0 (SKD: .001 MNIST, .01 Fashion-MNIST and CIFAR-10)."""
    discriminator: Literal["trained", "frozen"] = "trained"
    """Whether the discriminator goes on learning (DiM) or is a fixed critic (SKD's text)."""
    augment: str = "color_crop_cutout"
    """Differentiable augmentation shared by the real and the synthetic batch; none switches it off."""

    def __post_init__(self) -> None:
        require_types(self, "refine")
        require_at_least(self, "refine", 1, "steps")
        require_at_least(self, "refine", 2, "batch_size")
        require_at_least(self, "refine", 0, "weight")
        require_above_0(self, "refine", "lr", "tau")
        if self.match == "log_mse":
            for name, default in (("tau", 2.0), ("tau_mode", "divide"), ("standardize", True)):
                value = getattr(self, name)
                require(value == default, f"refine.{name}", value, f"its default {default} with match log_mse")


@dataclass(frozen=True)
class MatchConfig:
    """The rival: pixels optimised until a network's gradients, or its features, are those of real images."""

    ipc: int = 1
    """Images per class, at least 1."""
    iterations: int = 1000
    """Networks that the images are matched on one after the other, at least 1 (DC: 1000; DM: 20000)."""
    objective: Literal["gradient", "embedding"] = "gradient"
    """gradient matching (DC, DSA), or embedding: the mean features of each class (DM)."""
    distance: Literal["dc", "cos", "mse"] = "dc"
    """Between gradients: dc (1 - cosine of every output row, without 1-D parameters), cos or mse of all together."""
    outer: int | None = None
    """Image updates per network, at least 1; none: DC's table by IPC (1, 10, 20, ... 50: 1, 10, 20, ... 50)."""
    inner: int | None = None
    """Epochs on the set between two updates, at least 1; none: DC's table (1, 50, 25, 20, 15, 10)."""
    inner_first: bool = False
    """Whether a network also learns those epochs before its first comparison; DC's IPC 1 never trains it."""
    batch_real: int = 256
    """Real images of each class per update, at least 1 (DC: 256)."""
    batch_train: int = 256
    """Images per step of the inner epochs, at least 1 (DC: 256)."""
    lr_image: float | None = None
    """Learning rate of the images in classifier space, above 0; none: 0.1 for gradient (DC), 1 for embedding (DM)."""
    lr_network: float = 0.01
    """Learning rate of the inner epochs, above 0 (DC: 0.01, no momentum)."""
    augment: Literal["none", "dsa"] = "none"
    """dsa: one random operation on the real and the synthetic images of a class alike (Zhao and Bilen 2021)."""
    init: Literal["noise", "real", "generator"] = "noise"
    """First images: normal noise (DC), random real images (DSA, DM), or samples of match.generator."""
    generator: Path | None = None
    """Run folder or file of the generator for init generator."""

    def __post_init__(self) -> None:
        require_types(self, "match")
        require_at_least(self, "match", 1, "ipc", "iterations", "batch_real", "batch_train")
        for name in ("outer", "inner"):
            if getattr(self, name) is not None:
                require_at_least(self, "match", 1, name)
        require_above_0(self, "match", "lr_network")
        if self.lr_image is not None:
            require_above_0(self, "match", "lr_image")
        named = self.generator is not None
        require(
            named == (self.init == "generator"), "match.generator", self.generator, "a path with init generator only"
        )
        if self.objective == "embedding":
            for name, default in (("distance", "dc"), ("outer", None), ("inner", None), ("inner_first", False)):
                value = getattr(self, name)
                require(value == default, f"match.{name}", value, f"its default {default} with objective embedding")

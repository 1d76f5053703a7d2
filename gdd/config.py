"""Every setting and its default, one frozen dataclass per part; a YAML file holds only what differs.

Each field's docstring gives its unit, range and, where a number comes from a paper, its source. `--help` and
docs/configuration.md are generated from them. Ranges are checked when the object is made.
"""

import difflib
import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal


class ConfigError(ValueError):
    """A user's mistake, told in one sentence that names the key, file or value and what was expected."""


def nearest(value: str, names: Iterable[str]) -> str:
    """Return the end of an error's sentence: a known name much like `value`, if there is one."""
    near = difflib.get_close_matches(value.lower(), list(names), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _require(holds: bool, key: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{key} is {value!r}, expected {expected}")


def _is_number(value: object) -> bool:
    # A YAML null reaches a field whatever its type; .inf and .nan pass as floats.
    return isinstance(value, int | float) and math.isfinite(value)


def _require_at_least(part: object, section: str, low: float, *names: str) -> None:
    for name in names:
        value = getattr(part, name)
        _require(_is_number(value) and value >= low, f"{section}.{name}", value, f"a number of at least {low:g}")


def _require_above_0(part: object, section: str, *names: str) -> None:
    for name in names:
        value = getattr(part, name)
        _require(_is_number(value) and value > 0, f"{section}.{name}", value, "a number above 0")


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
        _require(
            _is_number(self.val_fraction) and 0 < self.val_fraction <= 0.5,
            "data.val_fraction",
            self.val_fraction,
            "above 0 and at most 0.5",
        )
        _require(self.root is not None, "data.root", self.root, "a folder")
        if self.size is not None:
            _require(min(self.size) >= 16, "data.size", self.size, "a height and a width of at least 16 pixels")


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
        _require_at_least(self, "gan", 4, "width")
        _require_at_least(self, "gan", 1, "noise_dim", "r1_every")
        _require_at_least(self, "gan", 0, "aux_weight", "gradient_penalty", "r1")
        for name in ("beta1", "beta2", "ema_decay"):
            value = getattr(self, name)
            _require(_is_number(value) and 0 <= value < 1, f"gan.{name}", value, "a number in [0, 1)")


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
        _require_at_least(self, "pretrain", 1, "steps")
        _require_at_least(self, "pretrain", 2, "batch_size")
        _require_above_0(self, "pretrain", "lr")


@dataclass(frozen=True)
class PoolConfig:
    """The networks that refinement compares real and synthetic images with."""

    members: tuple[str, ...] = ("convnet3-w16", "resnet10-w8", "resnet18-w8")
    """Architectures, such as convnet3 or resnet18-bn-w32 (SKD: ConvNet3, ResNet10, ResNet18)."""
    weights: tuple[float, ...] = ()
    """Probability weight of each member, none below 0; empty means equal."""
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
        _require(bool(self.members), "pool.members", self.members, "at least one architecture")
        if self.weights:
            valid = all(_is_number(weight) and weight >= 0 for weight in self.weights)
            valid = valid and len(self.weights) == len(self.members) and sum(self.weights) > 0
            expected = f"{len(self.members)} numbers of at least 0 that are not all 0, one per member"
            _require(valid, "pool.weights", self.weights, expected)
        _require_at_least(self, "pool", 1, "redraw_every")
        _require_at_least(self, "pool", 0, "steps_before", "steps_between")
        _require_at_least(self, "pool", 2, "batch_size")
        _require(
            _is_number(self.max_accuracy) and 0 < self.max_accuracy <= 1,
            "pool.max_accuracy",
            self.max_accuracy,
            "above 0 and at most 1",
        )
        _require_above_0(self, "pool", "lr")


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
        _require_at_least(self, "refine", 1, "steps")
        _require_at_least(self, "refine", 2, "batch_size")
        _require_at_least(self, "refine", 0, "weight")
        _require_above_0(self, "refine", "lr", "tau")
        if self.match == "log_mse":
            for name, default in (("tau", 2.0), ("tau_mode", "divide"), ("standardize", True)):
                value = getattr(self, name)
                _require(value == default, f"refine.{name}", value, f"its default {default} with match log_mse")


@dataclass(frozen=True)
class EvaluateConfig:
    """Scoring: which sets, which students, how they are trained."""

    sources: tuple[str, ...] = ()
    """Stored sets, run folders, real:random, real:all; empty means real:random, both own stages, real:all."""
    ipc: tuple[int, ...] = (10,)
    """Images per class of sets drawn from generators and from real data, each at least 1."""
    protocols: tuple[Literal["fixed", "stream"], ...] = ("fixed", "stream")
    """fixed reuses exactly IPC stored images per class; stream draws new ones at every step."""
    archs: tuple[str, ...] = ("convnet3-w24", "resnet18-bn-w8", "alexnet-bn-w8", "mlp")
    """Student architectures."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One student per seed; a seed also draws its own set from a generator or from real data."""
    recipe: Literal["dc", "dim"] = "dc"
    """dc: SGD .01, 300 epochs (1000 with DSA), rate / 10 at half; dim: SGD .01, 1000 epochs, colour and crop."""
    augment: Literal["none", "dsa"] = "none"
    """Whether recipe dc augments with DSA."""
    all_epochs: int | None = 20
    """Epochs on the whole real training part, at least 1; none uses the recipe's, which may take days."""
    teacher: Literal["none", "set", "real"] = "none"
    """Network whose outputs the students also imitate: trained on the same set, or on all real images."""
    teacher_arch: str = "convnet3-w32"
    """Architecture of the teacher."""
    alpha: float = 0.5
    """Share of the distillation term in the student's loss, in [0, 1]."""
    temperature: float = 1.5
    """Temperature T of the distillation term, above 0."""

    def __post_init__(self) -> None:
        for name in ("ipc", "protocols", "archs", "seeds"):
            _require(bool(getattr(self, name)), f"evaluate.{name}", getattr(self, name), "at least one value")
        _require(min(self.ipc) >= 1, "evaluate.ipc", self.ipc, "whole numbers of at least 1")
        _require(min(self.seeds) >= 0, "evaluate.seeds", self.seeds, "whole numbers of at least 0")
        if self.all_epochs is not None:
            _require_at_least(self, "evaluate", 1, "all_epochs")
        _require(_is_number(self.alpha) and 0 <= self.alpha <= 1, "evaluate.alpha", self.alpha, "a number in [0, 1]")
        _require_above_0(self, "evaluate", "temperature")
        if self.recipe == "dim":
            _require(
                self.augment == "none",
                "evaluate.augment",
                self.augment,
                "none with recipe dim, which brings its own",
            )


@dataclass(frozen=True)
class RunConfig:
    """Where results go, how often, and with how many threads; none of it is part of a run's fingerprint."""

    root: Path = Path("runs")
    """Folder below which <name>/<stage> is made."""
    overwrite: bool = False
    """Whether a run folder of another configuration is emptied instead of refused."""
    max_minutes: float | None = None
    """Minutes after the start of the command at which it stops with a checkpoint, above 0; the same command goes on."""
    log_every: int = 50
    """Steps between two lines of metrics, at least 1."""
    grid_every: int = 1000
    """Steps between two sample grids, at least 1."""
    save_every: int = 500
    """Steps between two checkpoints, at least 1."""
    keep: int = 2
    """Checkpoints kept, at least 1."""
    threads: int | None = None
    """CPU threads per process, at least 1; none shares the cores. Another number may change a result's last bits."""

    def __post_init__(self) -> None:
        _require_at_least(self, "run", 1, "log_every", "grid_every", "save_every", "keep")
        if self.max_minutes is not None:
            _require_above_0(self, "run", "max_minutes")
        if self.threads is not None:
            _require_at_least(self, "run", 1, "threads")


@dataclass(frozen=True)
class Config:
    """One experiment: a dataset, a generator distilled from it, and its score."""

    name: str = "digits"
    """Folder below run.root that this experiment writes to."""
    method: Literal["skd"] = "skd"
    """How distill.py distils: skd refines a generator."""
    seed: int = 0
    """Root of every random draw, at least 0."""
    score: bool = True
    """Whether distill.py ends with an evaluation."""
    data: DataConfig = field(default_factory=DataConfig)
    gan: GanConfig = field(default_factory=GanConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        _require(isinstance(self.seed, int) and self.seed >= 0, "seed", self.seed, "a whole number of at least 0")
        for part in ("data", "gan", "pretrain", "pool", "refine", "evaluate", "run"):
            _require(getattr(self, part) is not None, part, None, "a mapping of settings")
        plain = bool(self.name) and Path(self.name).name == self.name and self.name not in (".", "..")
        _require(plain, "name", self.name, "a plain folder name without slashes")


def to_plain(config: Any) -> dict[str, Any]:
    """Return a dataclass as JSON values: paths as text, tuples as lists."""
    return json.loads(json.dumps(asdict(config), default=str))


def config_hash(*parts: Any) -> str:
    """Return 16 hex digits that change with any value of any part (dataclasses or JSON values)."""
    plain = [to_plain(part) if hasattr(part, "__dataclass_fields__") else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]

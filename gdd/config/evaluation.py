"""Settings of scoring and of how a run behaves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gdd.config.checks import is_number, require, require_above_0, require_at_least, require_types


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
    """Temperature T of the distillation term, above 0 (kd_recipe released: at least 0)."""
    kd_recipe: Literal["equation", "released"] = "equation"
    """equation: alpha T^2 KL of softened outputs + (1 - alpha) CE (Zhou et al. 2024, eq. 1); released: what their
    code computed, alpha T^3 KL without softening + (1 - alpha) CE."""
    select_alpha: tuple[float, ...] = ()
    """Values of alpha among which each student's validation accuracy chooses, in [0, 1]; empty keeps alpha."""
    select_temperature: tuple[float, ...] = ()
    """Values of temperature among which each student's validation accuracy chooses; empty keeps temperature."""

    def __post_init__(self) -> None:
        require_types(self, "evaluate")
        for name in ("ipc", "protocols", "archs", "seeds"):
            require(bool(getattr(self, name)), f"evaluate.{name}", getattr(self, name), "at least one value")
        require(min(self.ipc) >= 1, "evaluate.ipc", self.ipc, "whole numbers of at least 1")
        require(min(self.seeds) >= 0, "evaluate.seeds", self.seeds, "whole numbers of at least 0")
        if self.all_epochs is not None:
            require_at_least(self, "evaluate", 1, "all_epochs")
        for name, values in (("alpha", (self.alpha,)), ("select_alpha", self.select_alpha)):
            valid = all(is_number(value) and 0 <= value <= 1 for value in values)
            require(valid, f"evaluate.{name}", getattr(self, name), "numbers in [0, 1]")
        released = self.kd_recipe == "released"
        for name, values in (("temperature", (self.temperature,)), ("select_temperature", self.select_temperature)):
            valid = all(is_number(value) and (value > 0 or (released and value == 0)) for value in values)
            require(valid, f"evaluate.{name}", getattr(self, name), "numbers above 0 (or 0 with kd_recipe released)")
        for name in ("select_alpha", "select_temperature"):
            values = getattr(self, name)
            require(self.teacher != "none" or not values, f"evaluate.{name}", values, "empty without evaluate.teacher")
        if self.recipe == "dim":
            require(
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
    snapshots: tuple[int, ...] = ()
    """Iterations after which gradient matching also stores its set, each at least 0."""
    threads: int | None = None
    """CPU threads per process, at least 1; none shares the cores. Another number may change a result's last bits."""
    precision: Literal["float32", "auto"] = "float32"
    """auto trains the GAN, and asks the pool, in mixed bfloat16 on GPUs that have it; all else stays in float32."""
    tf32: bool = True
    """Whether GPUs may round the factors of float32 products to TF32, as PyTorch does in convolutions."""
    deterministic: bool = False
    """Whether only algorithms that repeat to the bit are used; on CPUs all of gdd's do (docs/scaling.md)."""

    def __post_init__(self) -> None:
        require_types(self, "run")
        require_at_least(self, "run", 1, "log_every", "grid_every", "save_every", "keep")
        if self.max_minutes is not None:
            require_above_0(self, "run", "max_minutes")
        require(all(step >= 0 for step in self.snapshots), "run.snapshots", self.snapshots, "numbers of at least 0")
        if self.threads is not None:
            require_at_least(self, "run", 1, "threads")

"""Settings of how a run behaves."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic.dataclasses import dataclass

from gdd.config.fields import STRICT, AtLeast1, AtLeast1OrNull, PositiveOrNull, each, without_effect


@dataclass(frozen=True, config=STRICT)
class RunConfig:
    """Where results go, how often, and with how many threads and in which arithmetic."""

    root: Path = without_effect(Path("runs"))
    """Folder below which <name>/<stage> is made."""
    overwrite: bool = without_effect(False)
    """Whether a run folder of another configuration is emptied instead of refused."""
    max_minutes: PositiveOrNull = without_effect(None)
    """Minutes after the start of the command at which it stops with a checkpoint, above 0; the same command goes on."""
    log_every: AtLeast1 = without_effect(50)
    """Steps between two lines of metrics, at least 1."""
    grid_every: AtLeast1 = without_effect(1000)
    """Steps between two sample grids, at least 1."""
    save_every: AtLeast1 = without_effect(500)
    """Steps between two checkpoints, at least 1."""
    keep: AtLeast1 = without_effect(2)
    """Checkpoints kept, at least 1."""
    snapshots: Annotated[tuple[int, ...], each(0)] = without_effect(())
    """Iterations after which matching also stores its set, each at least 0."""
    threads: AtLeast1OrNull = without_effect(None)
    """CPU threads per process, at least 1; null shares the cores. Another number may change a result's last bits."""
    workers: AtLeast1OrNull = without_effect(None)
    """Processes that train students at once on CPUs, at least 1; null is one per core, or per `threads` cores."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of convolutions and products: auto takes bfloat16 where CPU or GPU compute in it; sums and losses are float32."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether networks are compiled: auto, where the work is long enough to win back the compiler's minute."""
    tf32: bool = True
    """Whether GPUs may round the factors of float32 products to TF32, as PyTorch does in convolutions."""
    deterministic: bool = False
    """Whether only algorithms that repeat to the bit are used; on CPUs all of gdd's do (docs/scaling.md)."""

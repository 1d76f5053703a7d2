"""Settings of what a run works on, the real images, and of how it behaves."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
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


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """The real images."""

    name: str = "digits"
    """digits, mnist, fashion_mnist, cifar10, cifar100, svhn, tiny_imagenet, folder, or a path: an image folder, an .npz
    file, WebDataset shards (.tar), Arrow or Parquet files of Hugging Face's datasets (docs/data.md)."""
    root: Path = without_effect(Path("data"))
    """Folder below which the named datasets lie; for `folder`, the folder itself."""
    label: str | None = without_effect(None)
    """Column of labels where Arrow or Parquet files, or a table beside images, have several; null: the only one."""
    size: Annotated[tuple[int, int] | None, each(16)] = None
    """Height and width in pixels to resize to, at least 16; null keeps the images as they are."""
    channels: Literal[1, 3] | None = None
    """1 (grey) or 3 (RGB) to convert to; null keeps what the images have."""
    val_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of the training images carved out, by class, for every selection, in [0, 0.5]; 0 carves out none, so that
    nothing can be selected."""
    download: bool = without_effect(False)
    """Whether torchvision may fetch a missing dataset."""

"""Settings of the real images."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from gdd.config.fields import STRICT, each, without_effect


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """The real images."""

    name: str = "digits"
    """digits, mnist, fashion_mnist, cifar10, cifar100, svhn, folder, or a path: an image folder, an .npz file,
    WebDataset shards (.tar), Arrow or Parquet files of Hugging Face's datasets (docs/data.md)."""
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

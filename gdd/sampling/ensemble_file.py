"""Classifiers trained on real images, which judge samples: one .safetensors file that says how to build them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gdd import zoo
from gdd.config import ConfigError, read_as
from gdd.data.pixels import Normalizer
from gdd.data.spec import DatasetSpec
from gdd.models import registry
from gdd.models.layers import Classifier
from gdd.runtime import checkpoint
from gdd.sampling.generator_file import compact, fill, header_of, result_file, save_described

FILE = zoo.ENSEMBLE  # named there, where torch is not imported
_MOST, _MOST_WIDTH = 64, 2**20  # members of a file, and channels of a layer
_MOST_PIXELS = 2**20  # of images for timm's networks, some of which fill tables of all places


class Ensemble(nn.Module):
    """Several classifiers, built from their names, that answer together, in eval mode and float32."""

    def __init__(self, archs: Sequence[str], spec: DatasetSpec, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.archs, self.spec = tuple(archs), spec
        self.members = nn.ModuleList(members)
        # Of its file.
        self.hash, self.bytes, self.provenance = "", 0, dict[str, Any]()
        self.eval().requires_grad_(False)

    def forward(self, images_std: Tensor) -> Tensor:
        """Return the mean of the members' logits (B, K) for images (B, C, H, W) in classifier space."""
        return torch.stack([member(images_std) for member in self.members]).mean(0)

    @torch.no_grad()
    def logits(self, images_u8: Tensor) -> Tensor:
        """Return the mean of the members' logits (B, K) for uint8 images (B, C, H, W)."""
        logits: Tensor = self(self._std(images_u8))
        return logits

    @torch.no_grad()
    def features(self, images_u8: Tensor) -> Tensor:
        """Return the members' features before their heads, joined, (B, F)."""
        images_std, features = self._std(images_u8), []
        for member in self.members:
            assert isinstance(member, Classifier)
            features.append(member.embed(images_std))
        return torch.cat(features, dim=1)

    def _std(self, images_u8: Tensor) -> Tensor:
        return Normalizer(self.spec.mean, self.spec.std, images_u8.device).from_u8(images_u8)


def save(folder: Path, ensemble: Ensemble, provenance: dict[str, Any]) -> Path:
    """Write `folder/ensemble.safetensors`; `provenance` is JSON."""
    facts = {"archs": list(ensemble.archs)}
    save_described(folder / FILE, "ensemble", compact(ensemble.state_dict()), ensemble.spec, provenance, **facts)
    return folder / FILE


def load(path: Path | str) -> Ensemble:
    """Read an ensemble from its file or from a run folder; ConfigError if it is missing, damaged or none."""
    path = result_file(Path(path), FILE, "gdd train-ensemble")
    tensors, metadata = checkpoint.load_tensors(path)
    with header_of(path, metadata, "ensemble") as (spec, provenance):
        archs = read_as(tuple[str, ...], metadata["archs"], "archs")
        ensemble = _build_on_meta(archs, spec, len(tensors))
    fill(path, ensemble, tensors, metadata)
    ensemble.hash, ensemble.bytes, ensemble.provenance = metadata["hash"], path.stat().st_size, provenance
    return ensemble


def _build_on_meta(archs: tuple[str, ...], spec: DatasetSpec, tensors: int) -> Ensemble:
    """Return the ensemble of a header, which may describe any size, without memory or more layers than the file has."""
    if not 0 < len(archs) <= _MOST:
        raise ConfigError(f"it has {len(archs)} members, expected 1 to {_MOST}")
    for arch in map(registry.parse, archs):
        if (arch.width or 0) > _MOST_WIDTH or (arch.depth or 0) > tensors:
            raise ConfigError(f"its member {arch.name} is larger than the file")
        if arch.width is None and spec.height * spec.width > _MOST_PIXELS:
            raise ConfigError(f"its images of {spec.height}x{spec.width} pixels are too large for {arch.name}")
    members = list[nn.Module]()
    with torch.device("meta"):
        for name in archs:
            members.append(registry.build(name, spec.shape, spec.num_classes))
            tensors -= len(members[-1].state_dict())
            if tensors < 0:  # of timm's names a short one may stand for thousands of layers
                raise ConfigError(f"its member {name} is larger than the file")
        return Ensemble(archs, spec, members)

"""A generator that another program has saved, as TorchScript or by torch.export: samples of it at gdd's own noise.

Opening such a file runs its maker's code, and so does every sample. Who calls this has asked the user first.
"""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export.passes import move_to_device_pass

from gdd.config import ConfigError
from gdd.data.pixels import pm1_to_u8
from gdd.data.spec import DatasetSpec
from gdd.formats import plain
from gdd.models.gan import Generator
from gdd.sampling.generator_file import LoadedGenerator
from gdd.sampling.sample import CHUNK, latents
from gdd.sampling.set_file import check_matches

EXPORTED = ".pt2"  # of torch.export; files of other names are TorchScript
_ROUNDING = 1 / 255  # half a level of 255, by which pixels may leave [-1, 1]


class ForeignGenerator(Generator):
    """A network of another program, whose answers are examined.

    Args:
        network: maps noise (B, noise_dim) float32 and classes (B,) int64 to images (B, C, H, W) in [-1, 1].
        num_classes: K.
        noise_dim: length of the noise vector.
        what: what an error's sentence calls it.
    """

    def __init__(self, network: nn.Module, num_classes: int, noise_dim: int, what: object) -> None:
        super().__init__()
        self.network, self.what = network, what
        self.num_classes, self.noise_dim = num_classes, noise_dim

    @torch.no_grad()
    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Return images (B, C, H, W) float32; ConfigError if the network fails or answers with anything else."""
        asked = f"noise {tuple(noise.shape)} float32 and classes {tuple(labels.shape)} int64"
        try:
            images = self.network(noise, labels)
        except Exception as error:  # what may fail in it, nobody knows
            raise ConfigError(f"{self.what} does not answer to {asked} ({_reason(error)})") from error
        if not isinstance(images, Tensor) or not images.is_floating_point():
            kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise ConfigError(f"{self.what} answers with {kind}, expected a tensor of floating-point numbers")
        if images.ndim != 4 or len(images) != len(labels) or images.shape[1] not in (1, 3):
            raise ConfigError(
                f"{self.what} answers to {asked} with shape {tuple(images.shape)}, expected ({len(labels)}, C, H, W) "
                "with 1 or 3 channels"
            )
        if not images.isfinite().all():
            raise ConfigError(f"{self.what} makes pixels that are infinite or not a number")
        low, high = (bound.item() for bound in images.aminmax())
        if max(-low, high) > 1 + _ROUNDING:
            raise ConfigError(
                f"{self.what} makes pixels from {low:.3g} to {high:.3g}, expected -1 (black) to 1 (white)"
            )
        return images.float()


def load(
    path: Path,
    noise_dim: int,
    dataset: DatasetSpec | Sequence[str],
    device: torch.device,
    method: str | None = None,
) -> LoadedGenerator:
    """Open a generator and try it, which runs foreign code.

    Args:
        path: of the file.
        noise_dim: length of its noise vector.
        dataset: what it imitates, or the names of its classes alone.
        device: where it works.
        method: what its maker calls it.

    Raises:
        ConfigError: the file cannot be opened, its network fails or answers with anything but such images, or it draws
            random numbers of its own, so that no sample could be made again.
    """
    names = dataset.class_names if isinstance(dataset, DatasetSpec) else tuple(dataset)
    network = ForeignGenerator(_opened(path, device), len(names), noise_dim, path)
    labels = torch.arange(CHUNK, device=device) % len(names)
    noise = latents(0, labels, torch.zeros_like(labels), noise_dim)
    images_pm1, again = network(noise, labels), network(noise, labels)
    if (images_pm1 - again).abs().max() > _ROUNDING:
        raise ConfigError(f"{path} answers differently to the same noise, expected no random numbers of its own")
    spec = plain.own_spec(path, names, pm1_to_u8(images_pm1).cpu())
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:16]
    provenance = {"method": method, "imported": path.name, "imported_hash": digest}
    if isinstance(dataset, DatasetSpec):
        check_matches(spec, dataset, path)
        return LoadedGenerator(network, dataset, digest, len(content), provenance)
    return LoadedGenerator(network, spec, digest, len(content), {**provenance, "format": plain.PLAIN})


@torch.no_grad()
def _opened(path: Path, device: torch.device) -> nn.Module:
    """Return the network of a file; ConfigError if it cannot be read. This runs foreign code."""
    try:
        if path.suffix == EXPORTED:
            program = torch.export.load(path)
            return move_to_device_pass(program, device).module()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*torch.jit.load", FutureWarning)  # for the maker of the file
            scripted: nn.Module = torch.jit.load(path, map_location=device)
        return scripted.eval()
    except Exception as error:  # torch's readers raise many types on damaged files
        kind = "program of torch.export" if path.suffix == EXPORTED else "TorchScript file"
        raise ConfigError(f"{path} is damaged or no {kind} ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[-200:] or type(error).__name__

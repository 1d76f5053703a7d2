"""Sample images from a generator: a stored set of any IPC, or the next batch of a stream."""

import torch
from torch import Tensor

from gdd.data.pixels import pm1_to_u8
from gdd.synth import latents
from gdd.synth.artifact import Artifact
from gdd.synth.store import SyntheticSet

# Images of one class per forward pass. Convolutions may round differently in batches of another size, so a set's
# samples always go through in the same company: chunk j of class c, whatever the IPC and whoever computes it.
CHUNK = 16


@torch.no_grad()
def sample_images(
    artifact: Artifact, label: int, start: int, stop: int, seed: int, device: torch.device | str
) -> Tensor:
    """Return samples `start..stop-1` of class `label`, (stop - start, C, H, W) uint8 on the CPU.

    Sample i depends on (seed, label, i) alone, to the bit: neither IPC nor the split of the work changes it.
    """
    first = start // CHUNK * CHUNK
    chunks = []
    for begin in range(first, stop, CHUNK):
        indices = torch.arange(begin, begin + CHUNK)
        labels = torch.full_like(indices, label)
        noise = latents.noise(seed, labels, indices, artifact.generator.noise_dim)
        chunks.append(pm1_to_u8(artifact.generator(noise.to(device), labels.to(device))).cpu())
    return torch.cat(chunks)[start - first : stop - first]


def sample_set(artifact: Artifact, ipc: int, seed: int, device: torch.device | str = "cpu") -> SyntheticSet:
    """Return exactly `ipc` images of every class, ordered by class; IPC 10 holds the first 10 of IPC 50's."""
    artifact.generator.to(device)
    classes = range(artifact.spec.num_classes)
    images = torch.cat([sample_images(artifact, label, 0, ipc, seed, device) for label in classes])
    labels, _ = latents.balanced(artifact.spec.num_classes, 0, ipc)
    keys = ("method", "stage", "seed", "fingerprint", "data", "seconds")
    provenance = {key: artifact.provenance[key] for key in keys if key in artifact.provenance}
    return SyntheticSet(
        images, labels, artifact.spec, ipc, {**provenance, "generator": artifact.hash, "sample_seed": seed}
    )


@torch.no_grad()
def stream_batch(
    artifact: Artifact, seed: int, start: int, stop: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Return samples `start..stop-1` of every class as uint8 images and labels on `device`, in one forward pass."""
    labels, indices = latents.balanced(artifact.spec.num_classes, start, stop)
    noise = latents.noise(seed, labels, indices, artifact.generator.noise_dim)
    labels = labels.to(device)
    return pm1_to_u8(artifact.generator.to(device)(noise.to(device), labels)), labels

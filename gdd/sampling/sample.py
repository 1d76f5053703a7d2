"""Sample images from a generator: a stored set of any IPC, or the next batch of a stream."""

from itertools import product
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from gdd.data.pixels import pm1_to_u8
from gdd.sampling import latents
from gdd.sampling.generator_file import Artifact
from gdd.sampling.set_file import SyntheticSet

# Images of one class per forward pass. Convolutions may round differently in batches of another size, so a set's
# samples always go through in the same company: chunk j of class c, whatever the IPC and whoever computes it.
CHUNK = 16
# Chunks that a process makes between two gatherings: 1024 images, so that no process but the main one holds more.
_ROUND = 64


@torch.no_grad()
def _chunk(artifact: Artifact, label: int, begin: int, seed: int, device: torch.device | str) -> Tensor:
    """Return samples `begin..begin+CHUNK-1` of a class, (CHUNK, C, H, W) uint8 on `device`; CHUNK divides `begin`."""
    indices = torch.arange(begin, begin + CHUNK)
    labels = torch.full_like(indices, label)
    noise = latents.noise(seed, labels, indices, artifact.generator.noise_dim)
    return pm1_to_u8(artifact.generator(noise.to(device), labels.to(device)))


def sample_images(
    artifact: Artifact, label: int, start: int, stop: int, seed: int, device: torch.device | str
) -> Tensor:
    """Return samples `start..stop-1` of class `label`, (stop - start, C, H, W) uint8 on the CPU.

    Sample i depends on (seed, label, i) alone, to the bit: neither IPC nor the split of the work changes it.
    """
    first = start // CHUNK * CHUNK
    chunks = [_chunk(artifact, label, begin, seed, device) for begin in range(first, stop, CHUNK)]
    return torch.cat(chunks)[start - first : stop - first].cpu()


def provenance(artifact: Artifact, seed: int) -> dict[str, Any]:
    """Return what a sampled set tells of its origin, as JSON."""
    keys = ("method", "stage", "seed", "fingerprint", "data", "seconds")
    known = {key: artifact.provenance[key] for key in keys if key in artifact.provenance}
    return {**known, "generator": artifact.hash, "sample_seed": seed}


def _as_set(artifact: Artifact, images: Tensor, ipc: int, seed: int) -> SyntheticSet:
    labels, _ = latents.balanced(artifact.spec.num_classes, 0, ipc)
    return SyntheticSet(images, labels, artifact.spec, ipc, provenance(artifact, seed))


def sample_set(artifact: Artifact, ipc: int, seed: int, device: torch.device | str = "cpu") -> SyntheticSet:
    """Return exactly `ipc` images of every class, ordered by class; IPC 10 holds the first 10 of IPC 50's."""
    artifact.generator.to(device)
    classes = range(artifact.spec.num_classes)
    images = torch.cat([sample_images(artifact, label, 0, ipc, seed, device) for label in classes])
    return _as_set(artifact, images, ipc, seed)


def sample_set_together(artifact: Artifact, ipc: int, seed: int, accelerator: Accelerator) -> SyntheticSet | None:
    """Return the set of `sample_set` on the main process and None on the others; all must call it.

    Whole chunks are dealt to the processes and gathered in rounds.
    """
    spec, device = artifact.spec, accelerator.device
    artifact.generator.to(device)
    chunks = list(product(range(spec.num_classes), range(0, ipc, CHUNK)))
    images = torch.empty(spec.num_classes, ipc, *spec.shape, dtype=torch.uint8) if accelerator.is_main_process else None
    for start in range(0, len(chunks), _ROUND * accelerator.num_processes):
        dealt = chunks[start : start + _ROUND * accelerator.num_processes]
        share = torch.zeros(_ROUND, CHUNK, *spec.shape, dtype=torch.uint8, device=device)  # all of one size, to gather
        for place, (label, begin) in enumerate(dealt[accelerator.process_index :: accelerator.num_processes]):
            share[place] = _chunk(artifact, label, begin, seed, device)
        gathered = accelerator.gather(share).view(accelerator.num_processes, _ROUND, CHUNK, *spec.shape).cpu()
        if images is not None:
            made = gathered.transpose(0, 1).flatten(0, 1)  # in the order in which they were dealt
            for (label, begin), chunk in zip(dealt, made, strict=False):
                images[label, begin : begin + CHUNK] = chunk[: ipc - begin]
    return None if images is None else _as_set(artifact, images.flatten(0, 1), ipc, seed)


@torch.no_grad()
def stream_batch(
    artifact: Artifact, seed: int, start: int, stop: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Return samples `start..stop-1` of every class as uint8 images and labels on `device`, in one forward pass."""
    labels, indices = latents.balanced(artifact.spec.num_classes, start, stop)
    noise = latents.noise(seed, labels, indices, artifact.generator.noise_dim)
    labels = labels.to(device)
    return pm1_to_u8(artifact.generator.to(device)(noise.to(device), labels)), labels

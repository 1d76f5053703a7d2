"""Sample images from a generator: a stored set of any IPC, or the next batch of a stream."""

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from accelerate import Accelerator
from einops import rearrange, repeat
from torch import Tensor

from gdd import rng
from gdd.data.pixels import pm1_to_u8
from gdd.sampling.generator_file import LoadedGenerator
from gdd.sampling.origin import sample_origin
from gdd.sampling.set_file import SyntheticSet

# Images of one class that belong together. Convolutions may round differently in batches of another size, so sample i
# of a set is always computed with samples i // 16 * 16 onwards of its class, whatever IPC or process.
CHUNK = 16
# Chunks in a forward pass, always as many: a GPU is idle with one, and a CPU's cache is full.
_AT_ONCE = {"cpu": 1, "cuda": 64}
# Chunks per process between two gathers: 1024 images, so that only the main process ever holds more.
_ROUND = 64


def latents(seed: int | Sequence[int], labels: Tensor, indices: Tensor, noise_dim: int) -> Tensor:
    """Return noise (B, noise_dim) for sample `indices[b]` of class `labels[b]`; (S, B, noise_dim) for S seeds.

    It depends on (seed, class, index) only, so IPC 10 is a prefix of IPC 50 whatever the batches are.
    """
    return rng.normal_rows(seed, rng.LATENT, labels, indices, noise_dim)


def balanced_labels(
    num_classes: int, start: int, stop: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Return labels and indices of samples `start..stop-1` of every class, ordered by class."""
    labels = repeat(torch.arange(num_classes, device=device), "k -> (k n)", n=stop - start)
    return labels, repeat(torch.arange(start, stop, device=device), "n -> (k n)", k=num_classes)


@torch.no_grad()
def _chunks(loaded: LoadedGenerator, labels: Tensor, firsts: Tensor, seed: int) -> Iterator[Tensor]:
    """Yield uint8 images (n, CHUNK, C, H, W) of N chunks, some after the other.

    Args:
        loaded: the generator.
        labels: (N,), of each chunk, on the device to work on.
        firsts: (N,), the index of its first sample; CHUNK divides it.
        seed: of the samples.
    """
    at_once, count = _AT_ONCE[labels.device.type], len(labels)
    within = torch.arange(CHUNK, device=labels.device)
    for begin in range(0, count, at_once):
        chosen = torch.arange(begin, begin + at_once, device=labels.device).clamp(max=count - 1)
        of_each = labels[chosen, None].expand(-1, CHUNK).flatten()
        images = images_of(loaded, seed, of_each, (firsts[chosen, None] + within).flatten())
        yield images.unflatten(0, (at_once, CHUNK))[: count - begin]


def _places(num_classes: int, ipc: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Return label and first index of all chunks that hold samples 0..ipc-1 of every class, ordered by class."""
    firsts = torch.arange(0, ipc, CHUNK, device=device)
    return torch.arange(num_classes, device=device).repeat_interleave(len(firsts)), firsts.repeat(num_classes)


def images_of(loaded: LoadedGenerator, seed: int | Sequence[int], labels: Tensor, indices: Tensor) -> Tensor:
    """Return uint8 images (B, C, H, W) of samples `indices[b]` of class `labels[b]`, in one forward pass.

    For S seeds (S, B, C, H, W).
    """
    noise = latents(seed, labels, indices, loaded.generator.noise_dim)
    several = noise.shape[:-2]
    images = pm1_to_u8(loaded.generator(noise.flatten(0, -2), labels.expand(*several, -1).flatten()))
    return images.view(*several, *labels.shape, *images.shape[1:])


def sample_images(
    loaded: LoadedGenerator, label: int, start: int, stop: int, seed: int, device: torch.device | str
) -> Tensor:
    """Return samples `start..stop-1` of class `label`, (stop - start, C, H, W) uint8 on the CPU.

    Sample i depends on (seed, label, i) alone, to the bit: neither IPC nor the split of the work changes it.
    """
    first = start // CHUNK * CHUNK
    firsts = torch.arange(first, stop, CHUNK, device=device)
    labels = torch.full_like(firsts, label)
    images = torch.cat([chunks.flatten(0, 1).cpu() for chunks in _chunks(loaded, labels, firsts, seed)])
    return images[start - first : stop - first]


def _as_set(loaded: LoadedGenerator, images: Tensor, ipc: int, seed: int) -> SyntheticSet:
    labels, _ = balanced_labels(loaded.spec.num_classes, 0, ipc)
    return SyntheticSet(images, labels, loaded.spec, ipc, sample_origin(loaded, seed))


def sample_set(loaded: LoadedGenerator, ipc: int, seed: int, device: torch.device | str = "cpu") -> SyntheticSet:
    """Return exactly `ipc` images of every class, ordered by class; IPC 10 holds the first 10 of IPC 50's."""
    loaded.generator.to(device)
    spec = loaded.spec
    places = _places(spec.num_classes, ipc, device)
    images = torch.cat([chunks.cpu() for chunks in _chunks(loaded, *places, seed)])
    of_each = images.view(spec.num_classes, -1, *spec.shape)[:, :ipc]
    return _as_set(loaded, of_each.flatten(0, 1), ipc, seed)


def sample_set_together(loaded: LoadedGenerator, ipc: int, seed: int, accelerator: Accelerator) -> SyntheticSet | None:
    """Return the set of `sample_set` on the main process and None on the others; all must call it.

    Chunks go to the processes in turn and are gathered in rounds.
    """
    spec, device = loaded.spec, accelerator.device
    loaded.generator.to(device)
    labels, firsts = _places(spec.num_classes, ipc, device)
    chunks = list(product(range(spec.num_classes), range(0, ipc, CHUNK)))
    images = torch.empty(spec.num_classes, ipc, *spec.shape, dtype=torch.uint8) if accelerator.is_main_process else None
    world_size = accelerator.num_processes
    for start in range(0, len(chunks), _ROUND * world_size):
        this_round = slice(start, start + _ROUND * world_size)
        own = slice(start + accelerator.process_index, this_round.stop, world_size)
        local = torch.zeros(_ROUND, CHUNK, *spec.shape, dtype=torch.uint8, device=device)  # one size, so as to gather
        if len(labels[own]):
            local[: len(labels[own])] = torch.cat([*_chunks(loaded, labels[own], firsts[own], seed)])
        gathered = accelerator.gather(local).cpu()  # (processes * _ROUND, CHUNK, C, H, W)
        if images is not None:
            in_turn = rearrange(gathered, "(process place) ... -> (place process) ...", process=world_size)
            for (label, begin), chunk in zip(chunks[this_round], in_turn, strict=False):
                images[label, begin : begin + CHUNK] = chunk[: ipc - begin]
    return None if images is None else _as_set(loaded, images.flatten(0, 1), ipc, seed)


@torch.no_grad()
def stream_batch(
    loaded: LoadedGenerator, seed: int, start: int, stop: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Return samples `start..stop-1` of every class as uint8 images and labels on `device`, in one forward pass."""
    loaded.generator.to(device)
    labels, indices = balanced_labels(loaded.spec.num_classes, start, stop, device)
    return images_of(loaded, seed, labels, indices), labels

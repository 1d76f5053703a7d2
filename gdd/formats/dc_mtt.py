"""Other projects' sets: the .pt files of DatasetCondensation (`dc`) and of MTT (`mtt`), and of their descendants.

Both hold images in classifier space, (x - mean) / std with their dataset's constants, and some descendants in [0, 1];
gdd's sets hold float32 pixels in unclipped [0, 1]-scale. Each way is computed in float64 and rounded to float32 once.
So, with e = 2**-24:

    .pt -> set -> .pt   |x' - x| <= e * (|u| / std + |x'|), u the pixel between, and for float32 x <= 2e * |u| / std
    set -> .pt -> set   |u' - u| <= e * (|u - mean| + |u'|), and |u' - u| <= 2e * |u - mean|

Labels and soft logits keep every bit. Soft probabilities p are stored as logarithms: |p' - p| <= e * p * (1 + |log p|),
and what is below 1.2e-38, the least that float32 holds in full, becomes that.
"""

import logging
import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gdd.config import ConfigError
from gdd.data.pixels import Normalizer, is_far_from_unit, u8_to_unit
from gdd.data.spec import DatasetSpec
from gdd.formats import pt_file
from gdd.runtime.checkpoint import creating, write_atomically
from gdd.sampling.set_file import SyntheticSet

logger = logging.getLogger(__name__)

Space = Literal["normalized", "unit"]  # what images are in: (x - mean) / std, or [0, 1]


def _summary(value: object) -> str:
    """Name type and size of whatever a file holds, for errors."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    if isinstance(value, dict):
        keys = [key[:40] for key in value if isinstance(key, str)][:8]  # other keys may print as gigabytes
        return f"a dict of {', '.join(keys) or 'nothing'}"
    return f"a {type(value).__name__} of {len(value)}" if isinstance(value, list | tuple) else type(value).__name__


def _tensor(value: object, what: str) -> Tensor:
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        raise ConfigError(f"{what} are {_summary(value)}, expected a dense tensor")
    if value.nbytes > value.untyped_storage().nbytes():  # a copy of it would fill the memory
        raise ConfigError(f"{what} are {_summary(value)}, more numbers than the file holds")
    return value.detach()


def _soft_logits(soft: Tensor, what: str) -> tuple[Tensor, str]:
    """Return float32 logits (N, K), and whether "probabilities" or "logits" were given."""
    values = soft.double()
    if not bool(values.isfinite().all()):
        raise ConfigError(f"{what} hold NaN or infinite values, expected finite ones")
    # A type's rounding alone moves the sum of a row by up to its eps / 2, which float16 needs.
    tolerance = max(1e-4, torch.finfo(soft.dtype).eps)
    if bool((values >= 0).all()) and bool(((values.sum(1) - 1).abs() <= tolerance).all()):
        # The logarithm of 0 would turn losses into NaN.
        return values.clamp_min(torch.finfo(torch.float32).tiny).log().float(), "probabilities"
    return values.float(), "logits"


def _assemble(
    path: Path,
    images: object,
    labels: Tensor,
    soft: Tensor | None,
    spec: DatasetSpec,
    space: Space,
    provenance: dict[str, Any],
) -> SyntheticSet:
    """Check images against (N,) labels, order both by class, and make a set of them."""
    made = _tensor(images, f"the images of {path}")
    if not made.is_floating_point() or made.ndim != 4 or tuple(made.shape[1:]) != spec.shape:
        raise ConfigError(
            f"the images of {path} are {_summary(made)}, expected {'normalised ' * (space == 'normalized')}float "
            f"(N, C, H, W) with (C, H, W) = {spec.shape} of {spec.name}"
        )
    if len(labels) != len(made) or len(labels) == 0:
        raise ConfigError(f"{path} has {len(made)} images for {len(labels)} labels, expected one for each")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= spec.num_classes:
        raise ConfigError(f"the labels of {path} go from {low} to {high}, expected 0 to {spec.num_classes - 1}")
    if not bool(made.double().isfinite().all()):
        raise ConfigError(f"the images of {path} hold NaN or infinite values, expected finite ones")
    counts = labels.bincount(minlength=spec.num_classes)
    least, most = int(counts.argmin()), int(counts.argmax())
    ipc = int(counts[least])
    if counts[most] != ipc:
        raise ConfigError(
            f"{path} has {ipc} images of class {spec.class_names[least]!r} but {counts[most]} of "
            f"{spec.class_names[most]!r}, expected the same number of each of the {spec.num_classes} of {spec.name}"
        )
    order = labels.argsort(stable=True)
    if space == "unit":
        images_unit, provenance = made[order].float(), {**provenance, "space": space}
    else:
        images_unit = Normalizer(spec.mean, spec.std).to_unit(made[order])
    _warn_of_space(path, made, images_unit, spec, space)
    try:
        return SyntheticSet(
            images_unit, labels[order], spec, ipc, provenance, soft_labels=None if soft is None else soft[order]
        )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _warn_of_space(path: Path, images: Tensor, images_unit: Tensor, spec: DatasetSpec, space: Space) -> None:
    """Say so where pixels look like those of another space than they were taken for."""
    if is_far_from_unit(images_unit):
        expected = "in [0, 1]" if space == "unit" else f"normalised by {spec.name}'s mean and std"
        logger.warning("%s: pixels are far from [0, 1]; is it %s?", path, expected)
    elif space == "normalized" and images.min() >= 0 and images.max() <= 1:
        logger.warning(
            "%s: all values are within [0, 1], as of images that were never normalised; if so, add --space unit", path
        )


def _classes_of(soft: Tensor, what: str) -> Tensor:
    """Return the class of each image that has learned labels (N, K).

    Sets are stored class by class, N / K images of each, and a learned label may come to favour another class than that
    of its image. So the place decides where most labels agree with it; else the label does, and the order is another.
    """
    count, num_classes = soft.shape
    favoured = soft.argmax(1)
    if count == 0 or count % num_classes:
        return favoured
    by_place = torch.arange(count) // (count // num_classes)
    moved = int((favoured != by_place).sum())
    if 2 * moved >= count:
        return favoured
    if moved:
        logger.info("%s: %d of %d favour another class than that of their image", what, moved, count)
    return by_place


def _hard_labels(labels: Tensor, what: str, expected: str) -> Tensor:
    if labels.ndim != 1 or labels.dtype not in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        raise ConfigError(f"{what} are {_summary(labels)}, expected {expected}")
    return labels.long()


def read_dc(
    path: Path, spec: DatasetSpec, index: int = -1, *, space: Space = "normalized", method: str | None = None
) -> SyntheticSet:
    """Read one set of a file that DC, DSA, DM or a descendant saved: {"data": [[images, labels], ...], ...}.

    IDC saves a lone pair, [images, labels].

    Args:
        path: the .pt file.
        spec: the dataset that the set stands for, by whose mean and std its images were normalised.
        index: which pair of the list; a negative one counts from the end.
        space: "unit" if the images are in [0, 1] instead, as IDC's are.
        method: name of the method that made the set, for the provenance.

    Raises:
        ConfigError: the file is missing, damaged, of another structure, does not fit `spec`, or would run code.
    """
    content, sha256 = pt_file.load(path)
    is_pair = isinstance(content, list | tuple) and len(content) == 2 and all(isinstance(x, Tensor) for x in content)
    pairs = [content] if is_pair else content.get("data") if isinstance(content, dict) else None
    if not isinstance(pairs, list) or not pairs:
        summary = _summary(content if pairs is None else pairs)
        raise ConfigError(f"{path} holds {summary}, expected a dict whose 'data' lists pairs of images and labels")
    if not -len(pairs) <= index < len(pairs):
        n = len(pairs)
        raise ConfigError(f"index is {index}, but {path} holds {n} sets, expected {-n} to {n - 1}")
    pair = pairs[index]
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise ConfigError(f"pair {index} of {path} is {_summary(pair)}, expected images and labels")
    what = f"the labels of {path}"
    labels = _hard_labels(_tensor(pair[1], what), what, "integers (N,)")
    provenance: dict[str, Any] = {"method": method, "imported": path.name, "sha256": sha256, "format": "dc"}
    provenance["index"] = index % len(pairs)
    return _assemble(path, pair[0], labels, None, spec, space, provenance)


def read_mtt(
    images_path: Path,
    labels_path: Path,
    spec: DatasetSpec,
    lr_path: Path | None = None,
    *,
    space: Space = "normalized",
    method: str | None = None,
) -> SyntheticSet:
    """Read a set that MTT or a descendant saved: a tensor of images, one of labels, and maybe a learning rate.

    Args:
        images_path: .pt file of images (N, C, H, W).
        labels_path: .pt file of integers (N,), or of soft labels (N, K), logits or probabilities.
        spec: as of `read_dc`, like space and method.
        lr_path: .pt file of the learning rate that was learned with the images, for the provenance.

    Raises:
        ConfigError: a file is missing, damaged, of another structure, does not fit `spec`, or would run code.
    """
    images, sha256 = pt_file.load(images_path)
    provenance: dict[str, Any] = {"method": method, "imported": images_path.name, "sha256": sha256, "format": "mtt"}
    what = f"the labels of {labels_path}"
    expected = f"integers (N,) or soft float labels (N, {spec.num_classes})"
    labels, soft = _tensor(pt_file.load(labels_path)[0], what), None
    if labels.is_floating_point():
        if labels.ndim != 2 or labels.shape[1] != spec.num_classes:
            raise ConfigError(f"{what} are {_summary(labels)}, expected {expected} for {spec.name}")
        soft, provenance["soft_labels"] = _soft_logits(labels, what)
        labels = _classes_of(soft, what)
    else:
        labels = _hard_labels(labels, what, expected)
    if lr_path is not None:
        provenance["learned_lr"] = _learning_rate(lr_path)
    return _assemble(images_path, images, labels, soft, spec, space, provenance)


def _learning_rate(path: Path) -> float:
    value, _ = pt_file.load(path)
    if isinstance(value, Tensor) and _tensor(value, f"the contents of {path}").numel() == 1:
        value = value.item()
    if not isinstance(value, float) or not math.isfinite(value):
        raise ConfigError(f"{path} holds {_summary(value)}, expected one finite number, the learning rate")
    return value


def _images_std(synthetic: SyntheticSet) -> Tensor:
    images = synthetic.images
    images_unit = u8_to_unit(images) if images.dtype == torch.uint8 else images
    return Normalizer(synthetic.spec.mean, synthetic.spec.std).from_unit_rounded_once(images_unit)


def _save(path: Path, content: object) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # given a path, torch.save would write its name into the file
            torch.save(content, file)

    with creating(path):
        write_atomically(path, write)


def write_dc(synthetic: SyntheticSet, path: Path) -> None:
    """Write images and hard labels, in the set's order, as DC does; ConfigError if `path` cannot be written to."""
    _save(path, {"data": [[_images_std(synthetic), synthetic.labels]], "accs_all_exps": {}})


def write_mtt(synthetic: SyntheticSet, images_path: Path, labels_path: Path) -> None:
    """Write images and labels, in the set's order, as MTT does; ConfigError if a path cannot be written to.

    Labels are the soft ones if the set has them: probabilities if it was imported with such, else logits.
    """
    if images_path.resolve() == labels_path.resolve():
        raise ConfigError(f"images and labels would both be {images_path}, expected two files")
    labels = synthetic.labels
    if synthetic.soft_labels is not None:
        labels = synthetic.soft_labels.float()
        if synthetic.provenance.get("soft_labels") == "probabilities":
            labels = labels.double().exp().float()
    _save(images_path, _images_std(synthetic))
    _save(labels_path, labels)

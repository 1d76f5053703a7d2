"""Whether a generator or a stored set copies the images that it was distilled from.

What is measured compares training images with held-out ones, real images of the same kind that no training step saw:
were the training images not remembered, both would look alike to the samples. docs/evaluation.md says what such a test
cannot tell.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gdd import rng
from gdd.config import ConfigError, read_as
from gdd.config.fields import AtLeast0, AtLeast1, NotNegative, Share
from gdd.data.mapped import ImageRows, joined, subset
from gdd.data.readers import Dataset
from gdd.data.splits import Split
from gdd.evaluation.copies import (
    NEIGHBOURS,
    Proportion,
    auc,
    near_copies,
    nearer_to_training,
    nearest,
    relative,
    true_positive_rate,
)
from gdd.evaluation.sources import Source
from gdd.formats.plain import images_u8
from gdd.runtime import checkpoint
from gdd.runtime.run import progress_bar
from gdd.sampling.curate import Generated, curated_set
from gdd.sampling.ensemble_file import Ensemble
from gdd.sampling.sample import sample_set
from gdd.sampling.set_file import check_matches

AUDIT_FILE = "audit.json"
AUDIT_SCHEMA = 1
LEAST = 100  # held-out images, for a quantile at 1 %
LEAST_OF_CLASS = 20  # validation images for which the test part is left alone
PICTURED = 12  # pairs
_AT_ONCE = 1000  # images that a teacher is asked about
_SEED = 0  # of a generator's samples, that of gdd sample, and of the draw of training images

HeldOutPart = Literal["validation", "test"]


class ComparedImages(NamedTuple):
    """What a source is compared with."""

    training: ImageRows  # (N, C, H, W) uint8, what it was distilled from
    held_out: ImageRows  # (M, C, H, W) uint8, what no training step saw
    part: HeldOutPart  # that these are


@dataclass(frozen=True)
class AuditedSource:
    """What was audited."""

    label: str  # as it was named
    kind: Literal["generator", "set"]
    hash: str  # of the generator or the set


@dataclass(frozen=True)
class Medians:
    """Median Euclidean distances of pixels in [0, 1] to the nearest image of a group; all groups are equally large."""

    training: NotNegative  # from samples to training images
    held_out: NotNegative  # from samples to held-out images
    real: NotNegative  # from held-out images to training images


@dataclass(frozen=True)
class Membership:
    """An attack that scores real images: those that score higher are taken for training images."""

    auc: Share
    low: Share  # end of DeLong's 95 % confidence interval
    high: Share  # its other end
    tpr_at_1_percent_fpr: Share


@dataclass(frozen=True)
class Audit:
    """What was found, as `audit.json` holds it."""

    source: AuditedSource
    dataset: str  # its name
    data: str  # fingerprint of its training and validation parts
    held_out: HeldOutPart  # where held-out images are from
    n_samples: AtLeast1
    n_training: AtLeast1  # training images, that near copies are looked for among
    n_held_out: AtLeast1  # held-out images, that say how near is near
    n_group: AtLeast1  # images of each of the two equal groups, for all other measures
    copies: AtLeast0  # samples that are training images to the last bit
    near_copies: Proportion  # samples as near to one training image as 1 % of the held-out images are; see `relative`
    nearest: Medians
    nearer_to_training: Proportion  # samples that are nearer to the training group than to the held-out one
    membership: Membership  # by the distance to the nearest sample (`evaluation.copies`)
    answers: Membership | None = None  # the attack on a teacher beside a generator; see `measure_answers`


class Evidence(NamedTuple):
    """What the picture shows."""

    to_training: Tensor  # (n_samples,) distances to the training group
    to_held_out: Tensor  # (n_samples,) to the held-out group
    real: Tensor  # (n_held_out,) from held-out images to the training group
    relative: Tensor  # (n_samples,) relative distances to all training images
    real_relative: Tensor  # (n_held_out,) the same of held-out images
    threshold: float  # relative distance of a near copy, at most
    closest: Tensor  # (N, C, H, W) uint8 samples, at most PICTURED, the most like copies first
    originals: Tensor  # (N, C, H, W) uint8 training images that are nearest to these
    closest_relative: Tensor  # (N,) relative distances of these


def write_audit(folder: Path, audit: Audit) -> None:
    """Write `audit.json`."""
    checkpoint.write_json(folder / AUDIT_FILE, {"schema": AUDIT_SCHEMA, **asdict(audit)})


def read_audit(folder: Path) -> Audit:
    """Return what `write_audit` has written; ConfigError if the file is missing, damaged or of another version."""
    path = folder / AUDIT_FILE
    values = checkpoint.read_json(path)
    if not isinstance(values, dict) or values.get("schema") != AUDIT_SCHEMA:
        raise ConfigError(f"{path} is no audit of schema {AUDIT_SCHEMA}; give the command gdd audit again")
    return read_as(Audit, values, str(path))


def compared_images(source: Source, dataset: Dataset) -> ComparedImages:
    """Return training and held-out images.

    Held out is the validation part if the source's file says that nothing was trained or chosen on it and it has 20
    images of each class, for it was drawn at random from the same images as the training part; else the test part.
    Of a source that does not say its data, validation images may have been trained on and count as training images.

    Raises:
        ConfigError: the source was distilled from other images, or too few are held out.
    """
    train, val, stated = dataset.train, dataset.val, source.provenance.get("data")
    if stated and stated != dataset.fingerprint:
        seed = source.provenance.get("seed")
        raise ConfigError(
            f"{source.label} was distilled from other images than those of {dataset.spec.name} here, or from another "
            f"division of them; expected its own data settings{'' if seed is None else f' and --seed {seed}'}"
        )
    counts = val.labels.bincount(minlength=dataset.spec.num_classes)
    enough = len(val.labels) >= LEAST and int(counts.min()) >= LEAST_OF_CLASS
    if stated and enough and _spares_validation(source.provenance):
        return ComparedImages(train.images_u8, val.images_u8, "validation")
    test = dataset.test()
    if len(test.labels) < LEAST:
        raise ConfigError(
            f"the test part of {dataset.spec.name} has {len(test.labels)} images, expected at least {LEAST} that are "
            "held out"
        )
    training = train.images_u8 if stated else joined(train.images_u8, val.images_u8)
    return ComparedImages(training, test.images_u8, "test")


def _spares_validation(provenance: dict[str, Any]) -> bool:
    """Tell whether a file says that no validation image of its data was trained or chosen on."""
    config = provenance.get("config")
    # A generator of another run may have had another validation part.
    places = ("gan", "proxy", "every"), ("refine", "pretrained"), ("matching", "generator")
    return bool(config) and not any(_stated(config, *keys) for keys in places)


def _stated(settings: Any, *keys: str) -> Any:
    """Return a setting of nested ones; none where they do not have it."""
    for key in keys:
        settings = settings.get(key) if isinstance(settings, dict) else None
    return settings


def samples(source: Source, ipc: int) -> Tensor:
    """Return a set's images, or `ipc` of every class of a generator, (N, C, H, W) uint8."""
    if source.synthetic is not None:
        return images_u8(source.synthetic)
    assert source.generator is not None
    if source.ensemble is None:
        return sample_set(source.generator, ipc, _SEED).images
    return curated_set(Generated(source.generator, _SEED), source.ensemble, ipc, filtered=True).images


def measure_audit(source: Source, real: ComparedImages, dataset: Dataset, ipc: int) -> tuple[Audit, Evidence]:
    """Compare a source with training and held-out images.

    The number of candidates decides how near the nearest is, so training images are drawn until both groups are equally
    large. Only near copies are looked for among all of them, for the held-out images beside them are as well.

    Args:
        source: a generator or a set that fits the dataset.
        real: what it is compared with.
        dataset: where these are from.
        ipc: samples of each class that a generator makes.
    """
    made, (known, new, part) = samples(source, ipc), real
    size = min(len(known), len(new))
    group, other = _drawn(known, size), _drawn(new, size)
    with progress_bar(shown=True) as progress:
        task = progress.add_task("comparing images", total=7)

        def timed(images: ImageRows, real: ImageRows, count: int = 1) -> tuple[Tensor, Tensor]:
            distances, rows = nearest(images, real, count)
            progress.advance(task)
            return distances, rows

        distances, rows = timed(made, known, min(NEIGHBOURS, len(known)))
        real_distances, _ = timed(new, known, min(NEIGHBOURS, len(known)))
        near, near_new, between, members, others = (
            tuple(column[:, 0] for column in timed(images, among))
            for images, among in ((made, group), (made, other), (new, group), (group, made), (other, made))
        )
    far, real_far = relative(distances), relative(real_distances)
    copied, threshold = near_copies(far, real_far)
    nearest_of_both = torch.where(near[0] < near_new[0], near[1], near_new[1] + size)
    scores = -members[0], -others[0]
    audit = Audit(
        source=AuditedSource(source.label, "set" if source.generator is None else "generator", source.hash),
        dataset=dataset.spec.name,
        data=dataset.fingerprint,
        held_out=part,
        n_samples=len(made),
        n_training=len(known),
        n_held_out=len(new),
        n_group=size,
        copies=int((distances[:, 0] == 0).sum()),
        near_copies=copied,
        nearest=Medians(*(distances.median().item() for distances, _ in (near, near_new, between))),
        nearer_to_training=nearer_to_training(near[0], near_new[0], nearest_of_both),
        membership=Membership(*auc(*scores), true_positive_rate(*scores)),
    )
    first = far.argsort(stable=True)[:PICTURED]
    evidence = Evidence(
        to_training=near[0],
        to_held_out=near_new[0],
        real=between[0],
        relative=far,
        real_relative=real_far,
        threshold=threshold,
        closest=made[first],
        originals=known[rows[first, 0]],
        closest_relative=far[first],
    )
    return audit, evidence


def measure_answers(teacher: Ensemble, dataset: Dataset, part: HeldOutPart) -> Membership:
    """Attack a teacher: an image to which it answers with less loss is taken for one that it was trained on.

    So do Yeom et al. (CSF 2018, arXiv 1709.01604, section 3). All training images are compared with all held-out ones.

    Raises:
        ConfigError: the teacher was trained on other images than these, so nobody knows what it was trained on.
    """
    check_matches(teacher.spec, dataset.spec, "the teacher")
    if teacher.provenance.get("data") != dataset.fingerprint:
        raise ConfigError(f"the teacher was trained on other images than those of {dataset.spec.name} here")
    held_out = dataset.val if part == "validation" else dataset.test()
    scores = [-_losses(teacher, split) for split in (dataset.train, held_out)]
    return Membership(*auc(*scores), true_positive_rate(*scores))


def _losses(teacher: Ensemble, split: Split) -> Tensor:
    """Return the cross-entropy (N,) of each image of a split."""
    parts = zip(split.images_u8.split(_AT_ONCE), split.labels.split(_AT_ONCE), strict=True)
    return torch.cat([F.cross_entropy(teacher.logits(images), labels, reduction="none") for images, labels in parts])


def _drawn(images: ImageRows, size: int) -> ImageRows:
    """Return so many random images of a group; all of them in their order if it has no more."""
    if len(images) == size:
        return images
    return subset(images, rng.Draws(_SEED, rng.AUDITED_IMAGES).permutation(len(images))[:size])

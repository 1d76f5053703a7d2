"""The students that DD-Ranking's scores need beside those of a comparison: which, and under which settings."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from gdd.config import EvaluateConfig, stable_hash
from gdd.data.spec import OPERATIONS, DatasetSpec
from gdd.evaluation.recipe import Conditions, Job, resolve_recipe
from gdd.evaluation.sources import CEILING, CROPS, FLOOR, HERDED, REAL_NAMES, Kind, Source

SCORED: tuple[Kind, ...] = (FLOOR, HERDED, CROPS, "set", "generator")  # what has scores, from its fixed images


class Arm(NamedTuple):
    """Students that are trained under settings of their own."""

    settings: EvaluateConfig
    jobs: list[Job]


def arms(settings: EvaluateConfig, jobs: Sequence[Job], flip: bool) -> tuple[Arm, Arm]:
    """Return the two arms beside the comparison's own students, which may have been trained among these already.

    Args:
        settings: those of the comparison.
        jobs: its students, among them those of the floor.
        flip: whether mirroring keeps the class.

    Returns:
        Those with the other augmentation: none where the recipe has one, else DSA's operations. And those on hard
        labels, without augmentation and without a teacher: of the sources and of all real images.
    """
    scored = [job for job in jobs if job.protocol == "fixed" and job.source.kind in SCORED]
    augments = resolve_recipe(settings.recipe, flip).augment != "none"
    plain = replace(settings.recipe, augment="none")
    other = plain if augments else replace(settings.recipe, augment="_".join(OPERATIONS))
    alone = replace(settings, recipe=plain, teacher="none", select_alpha=(), select_temperature=())
    # The floor of hard labels has the hash of the real data, which is also that of all of them.
    floor = next(job.source for job in scored if job.source.kind == FLOOR and not job.source.soft_labels)
    real = Source(REAL_NAMES[CEILING], CEILING, floor.hash)
    hardened = {job.source: _hardened(job.source) for job in scored}
    hard = [replace(job, source=hardened[job.source]) for job in scored]
    full = [Job(real, None, "fixed", arch, seed) for arch, seed in dict.fromkeys((job.arch, job.seed) for job in hard)]
    return Arm(replace(settings, recipe=other), scored), Arm(alone, [*hard, *full])


def _hardened(source: Source) -> Source:
    """Return a set, or what is drawn, without its soft labels, and anything else as it is."""
    if source.soft_labels:
        return replace(source, soft_labels=False, hash=stable_hash(source.hash, "hard"))
    if source.synthetic is None or source.synthetic.soft_labels is None:
        return source
    synthetic = replace(source.synthetic, soft_labels=None)
    return replace(source, synthetic=synthetic, hash=synthetic.hash)


def extra_students(
    settings: EvaluateConfig, jobs: Sequence[Job], spec: DatasetSpec, all_images: int
) -> list[tuple[Conditions, Job]]:
    """Return the students of the arms that are no student of the comparison, each once; real images: `all_images`."""
    students_by_key: dict[object, tuple[Conditions, Job]] = {}
    for arm_settings, jobs_of_arm in (Arm(settings, [*jobs]), *arms(settings, jobs, spec.flip)):
        conditions = Conditions.of(arm_settings, spec)
        for job in jobs_of_arm:
            students_by_key.setdefault(job.key(conditions, job.images(spec, all_images)), (conditions, job))
    return [*students_by_key.values()][len(jobs) :]

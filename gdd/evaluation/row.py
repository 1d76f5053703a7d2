"""The row that one trained student yields."""

from dataclasses import asdict, dataclass
from typing import Any

from gdd.config import read_as, require
from gdd.evaluation.sources import Kind, Protocol


@dataclass(frozen=True)
class Row:
    """One student's score and everything needed to judge and repeat it.

    Args:
        source: the table's name of what it was trained on.
        kind: real:random (the floor), real:all (the ceiling), set or generator.
        method: how the set was distilled; none if its maker did not say.
        stage: stage of a generator's distillation.
        arch: canonical name of the student.
        seed: of the student, and of a set drawn for it.
        ipc: images per class; none for all real images.
        protocol: fixed: the same stored images every epoch; stream: new samples every epoch.
        accuracy: percent of the test images, after the last step.
        validation_accuracy: percent of the validation images by which the student was chosen; none if it was not.
        correct: test images classified correctly.
        total: test images, all of them.
        recipe: name of the recipe.
        augment: operations on the student's training images.
        label_kind: hard or stored soft, perhaps + online teacher and what that was trained on.
        alpha: weight of the teacher's outputs, perhaps chosen; none without a teacher.
        temperature: of the teacher's outputs, perhaps chosen; none without a teacher.
        epochs: passes over the images.
        images: images of the set; of one epoch if streamed.
        distinct_images_seen: samples over the whole training, augmentation not counted.
        bytes: of images and labels; of the generator's file if streamed.
        optimizer_steps: of the student.
        images_per_step: of the largest batch.
        train_loss: of the last step.
        seconds: wall clock of the student's training, generation included, its teacher's not.
        seconds_generating: share of it that streaming took; drawing a fixed set is in it once per student.
        seconds_teacher: training of the teacher, shared by all students that it teaches; 0 without.
        seconds_selecting: training of the candidates that were not chosen, and validation of all; 0 without.
        peak_memory_mb: GPU: allocated while training; CPU: the whole process so far (MiB).
        device: its name.
        generator_seconds: what distilling took, if known.
        set_hash: of the images really used if fixed; none if streamed.
        source_hash: of the generator, the stored set, or the real data.
        recipe_hash: rows of another one do not compare; the ceiling's epochs are no part of it.
        config_hash: of the whole evaluation.
        git_revision: of this package's checkout, if it is one.
        versions: of libraries.
        dataset: its name.
    """

    source: str
    kind: Kind
    method: str | None
    stage: str | None
    arch: str
    seed: int
    ipc: int | None
    protocol: Protocol
    accuracy: float
    validation_accuracy: float | None
    correct: int
    total: int
    recipe: str
    augment: str
    label_kind: str
    alpha: float | None
    temperature: float | None
    epochs: int
    images: int
    distinct_images_seen: int
    bytes: int
    optimizer_steps: int
    images_per_step: int
    train_loss: float
    seconds: float
    seconds_generating: float
    seconds_teacher: float
    seconds_selecting: float
    peak_memory_mb: float
    device: str
    generator_seconds: float | None
    set_hash: str | None
    source_hash: str
    recipe_hash: str
    config_hash: str
    git_revision: str | None
    versions: dict[str, str]
    dataset: str

    @property
    def key(self) -> tuple[Any, ...]:
        """The key of the job that this row answers."""
        told = self.kind, self.source_hash, self.ipc, self.protocol, self.arch, self.seed
        return *told, self.epochs, self.recipe_hash

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Row":
        """Rebuild a row; ConfigError if a field is missing, as in a row of another version, or is odd."""
        row = read_as(cls, values)
        require(0 <= row.accuracy <= 100, "accuracy", row.accuracy, "a number in [0, 100]")
        return row

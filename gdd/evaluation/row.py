"""The row that one trained student yields."""

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

from pydantic import Field

from gdd.config import earlier, read_as, require
from gdd.evaluation.sources import Kind, Protocol
from gdd.runtime.execution import Precision


@dataclass(frozen=True)
class Row:
    """One student's score and everything needed to judge and repeat it."""

    source: str  # the table's name of what it was trained on
    kind: Kind  # real:random (the floor), real:all, real:stream (the ceilings), set or generator
    method: str | None  # how the set was distilled; none if its maker did not say
    stage: str | None  # stage of a generator's distillation
    arch: str  # canonical name of the student
    seed: int  # of the student, and of a set drawn for it
    ipc: int | None  # images per class; none for all real images
    protocol: Protocol  # fixed: the same stored images every epoch; stream: new samples every epoch
    accuracy: float | None  # percent of the test images, after the last step; none of a student that failed
    # percent of the validation images by which the student was chosen; none if it was not
    validation_accuracy: float | None
    correct: int  # test images classified correctly, none of them by logits that are not finite
    total: int  # test images, all of them
    recipe: str  # name of the recipe, and what differs from it
    augment: str  # operations on the student's training images
    label_kind: str  # hard or stored soft, perhaps + online or kept teacher and what that was trained on
    alpha: float | None  # weight of the teacher's outputs, perhaps chosen; none without a teacher
    temperature: float | None  # of the teacher's outputs, perhaps chosen; none without a teacher
    epochs: int  # passes over the images, the last of which may be unfinished
    images: int  # images of the set; of one epoch if streamed
    distinct_images_seen: int  # samples over the whole training, augmentation not counted
    bytes: int  # of images and labels, or of the generator's file if streamed; and of a kept teacher's
    optimizer_steps: int  # of the student
    images_per_step: int  # of the largest batch
    train_loss: float  # of the last step
    # wall clock of the student's training, generation included, its teacher's not; its share of the students' at once
    seconds: float
    seconds_generating: float  # share of it that generating a stream, or drawing the fixed set, took
    seconds_teacher: float  # training of the teacher, shared by all students that it teaches; 0 without
    seconds_selecting: float  # training of the candidates that were not chosen, and validation of all; 0 without
    peak_memory_mb: float  # GPU: allocated while training, by all at once; CPU: the whole process so far (MiB)
    device: str  # its name
    generator_seconds: float | None  # what distilling took, if known
    set_hash: str | None  # of the images really used if fixed; none if streamed
    source_hash: str  # of the generator, the stored set, or the real data
    recipe_hash: str  # rows of another one do not compare; the ceiling's epochs are no part of it
    config_hash: str  # of the whole evaluation
    git_revision: str | None  # of this package's checkout, if it is one
    versions: dict[str, str]  # of libraries
    dataset: str  # its name
    precision: Precision = "float32"  # of the student's convolutions and products; rows of 0.1.0 do not say
    compiled: bool = False  # whether its network was
    together: int = 1  # students that were trained at once, as one stack of networks
    distillation_seed: int | None = None  # of the source; none of real images or if nobody said
    # at which its paths were kept, one after the other; none if it dropped none
    keep_rates: Annotated[tuple[float, ...], Field(min_length=1)] | None = None
    failure: str | None = None  # why the student has no accuracy; none if it has one
    source_revision: str | None = None  # commit of the Hub's repository that the source was fetched from, if it was
    # percent of the test images that its teacher gets right; none without one, or of a row that does not say
    teacher_accuracy: Annotated[float | None, Field(ge=0, le=100)] = None
    # networks that had a part in it and began with weights learned from other images: the student's, its teacher's,
    # those that made or chose its images
    pretrained: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[Any, ...]:
        """The key of the job that this row answers."""
        source, student = (self.kind, self.source_hash), (self.ipc, self.protocol, self.arch, self.seed)
        return *source, *student, self.epochs, self.recipe_hash, self.precision

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Row":
        """Rebuild a row; ConfigError if a field is missing, as in a row of another version, or is odd."""
        row = read_as(cls, values)
        row = replace(row, method=earlier.current_origin({"method": row.method, "stage": row.stage})["method"])
        if row.failure is None:
            valid = row.accuracy is not None and 0 <= row.accuracy <= 100
            require(valid, "accuracy", row.accuracy, "a number in [0, 100]")
        else:
            require(row.accuracy is None, "accuracy", row.accuracy, "null of a student that failed")
        return row

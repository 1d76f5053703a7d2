"""The students that published numbers still take: planned, trained, and kept as `gdd.published` keeps them."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from gdd import published, zoo
from gdd.config import Config, ConfigError, stages
from gdd.data.spec import DatasetSpec
from gdd.evaluation import sources
from gdd.evaluation.dd_ranking import Arm
from gdd.evaluation.recipe import Job, resolve_recipe
from gdd.evaluation.row import Row
from gdd.evaluation.sources import Source
from gdd.formats import dc_mtt
from gdd.models import registry
from gdd.models.cost import TRAINING, classifier_flop
from gdd.pipeline.opening import Inputs
from gdd.pipeline.scoring import score_arms
from gdd.published import Cell, Key, Paper, Student
from gdd.runtime.checkpoint import write_atomically

STUDENTS, VERDICTS = "students.csv", "verdicts.md"


class Part(NamedTuple):
    """Students of one way, and what is kept of each."""

    keys: list[Key]
    arm: Arm


def keys_of(cells: Iterable[Cell], known: Iterable[Key] = ()) -> list[Key]:
    """Return the students that the numbers take, each once, but for those that are known."""
    wanted = dict.fromkeys(key for cell in cells for key in (*cell.equation, *cell.released))
    return [*dict.fromkeys(key for key in wanted if key not in {*known})]


def published_set(paper: Paper, name: str, folder: Path, spec: DatasetSpec) -> Source:
    """Read a set that a paper's authors published; ConfigError if its file is missing or is not theirs."""
    file, place, _ = paper.sets[name]
    path = folder / file
    if not path.is_file():
        raise ConfigError(f"{path} is not there, expected the file of {paper.files_from}; --files names its folder")
    if zoo.sha256(path) != paper.files[file]:
        raise ConfigError(f"{path} is not the file of {paper.files_from}: its checksum differs")
    return sources.of_set(dc_mtt.read_dc(path, spec, place, method=paper.title), path, name)


def parts_of(paper: Paper, keys: Sequence[Key], folder: Path, spec: DatasetSpec) -> list[Part]:
    """Return the students by the ways in which they are trained; ConfigError as of `published_set`."""
    read = {name: published_set(paper, name, folder, spec) for name in dict.fromkeys(key.set for key in keys)}
    parts = []
    for way in dict.fromkeys(key.way for key in keys):
        own = [key for key in keys if key.way == way]
        jobs = [
            Job(read[key.set], read[key.set].stored_ipc, "fixed", registry.parse(key.arch).name, key.seed)
            for key in own
        ]
        parts.append(Part(own, Arm(paper.ways[way], jobs)))
    return parts


def flop_of(paper: Paper, keys: Iterable[Key]) -> float:
    """Return the FLOP of training and testing students, their teachers left out."""
    total = 0.0
    for key in keys:
        _, _, ipc = paper.sets[key.set]
        recipe = resolve_recipe(paper.ways[key.way].recipe, flip=True)
        images = TRAINING * recipe.images_seen(ipc * paper.num_classes) + paper.test_images
        total += images * classifier_flop(key.arch, paper.shape, paper.num_classes)
    return total


def reproduce(
    config: Config, inputs: Inputs, parts: Sequence[Part], write: Callable[[list[Student]], str]
) -> list[Student]:
    """Train and score the students that have no row in the run's folder yet, and return all of the parts.

    The main process keeps them in `STUDENTS` there, and what `write` says of them in `VERDICTS`.
    """

    def keep(folder: Path, *rows: list[Row]) -> list[Path]:
        students = _students(parts, rows)
        published.write_students(folder / STUDENTS, students)
        write_atomically(folder / VERDICTS, lambda temporary: temporary.write_text(write(students)))
        return [folder / STUDENTS, folder / VERDICTS]

    return _students(parts, score_arms(stages.REPRODUCE, config, inputs, [part.arm for part in parts], keep))


def _students(parts: Sequence[Part], rows: Sequence[list[Row]]) -> list[Student]:
    return [
        Student(
            **key._asdict(),
            correct=row.correct,
            total=row.total,
            failed=row.failure is not None,
            teacher_accuracy=row.teacher_accuracy,
            train_loss=row.train_loss,
            seconds=row.seconds,
            precision=row.precision,
            device=row.device,
            torch=row.versions["torch"],
            git_revision=row.git_revision,
            set_hash=row.source_hash,
            recipe_hash=row.recipe_hash,
        )
        for part, of_part in zip(parts, rows, strict=True)
        for key, row in zip(part.keys, of_part, strict=True)
    ]

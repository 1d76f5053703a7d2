"""The students that published numbers still take: planned, trained, and kept as `gdd.published` keeps them."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from gdd import zoo
from gdd.config import Config, ConfigError, stages
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.evaluation import grid, sources
from gdd.evaluation.dd_ranking import Arm
from gdd.evaluation.recipe import Conditions, Job, Recipe
from gdd.evaluation.row import Row
from gdd.evaluation.sources import Source
from gdd.formats import dc_mtt
from gdd.models import registry
from gdd.models.cost import TRAINING, classifier_flop, gan_flop
from gdd.pipeline.opening import Inputs
from gdd.pipeline.scoring import score_arms
from gdd.published import DATASETS, Key, Made, Paper, Student
from gdd.runtime.checkpoint import write_atomically
from gdd.sampling import generator_file

PAGE = "verdicts.md"


def spec_of(dataset: str) -> DatasetSpec:
    """Return what decides recipes and sizes; classes have no names and pixels no moments."""
    shape, num_classes, flip, _ = DATASETS[dataset]
    names = tuple(map(str, range(num_classes)))
    return DatasetSpec(dataset, *shape, names, (0.0,) * shape[0], (1.0,) * shape[0], flip)


def waiting(paper: Paper, keys: Iterable[Key]) -> dict[str, Made]:
    """Return the sets by their names that gdd has to distil first."""
    names = dict.fromkeys(key.set for key in keys if key.set in paper.made)
    return {name: paper.made[name] for name in names if not Path(paper.made[name].path).exists()}


def check_published(paper: Paper, keys: Iterable[Key], folder: Path) -> None:
    """Raise ConfigError if a file that the authors published is missing or is not theirs."""
    for file in dict.fromkeys(paper.sets[key.set][0] for key in keys if key.set in paper.sets):
        path = folder / file
        if not path.is_file():
            raise ConfigError(
                f"{path} is not there, expected the file of the {paper.files_from}; --files names its folder"
            )
        if zoo.sha256(path) != paper.files[file]:
            raise ConfigError(f"{path} is not the file of the {paper.files_from}: its checksum differs")


def source_of(paper: Paper, name: str, folder: Path, dataset: Dataset) -> Source:
    """Read a set; ConfigError if it is damaged, or if one that gdd distilled is not the one that is asked for."""
    if name in paper.sets:
        file, place, _ = paper.sets[name]
        synthetic = dc_mtt.read_dc(folder / file, dataset.spec, place, method=paper.title)
        return sources.of_set(synthetic, folder / file, name)
    made = paper.made[name]
    source = sources.fit_source(sources.read(made.path, name), dataset)
    if made.protocol not in source.protocols(("stream",)):
        kind = {"fixed": "a set", "stream": "a generator"}[made.protocol]
        raise ConfigError(f"{made.path} is not {kind}, expected {kind}: {made.command}")
    facts = source.provenance
    if made.method is None:
        found = f"{source.stored_ipc} images per class of {facts.get('iterations')} iterations"
        wanted = f"{made.ipc} images per class of {made.iterations} iterations"
    else:
        steps = facts.get("config", {}).get("refine", {}).get("steps")
        found, wanted = (
            f"{done} steps of {how}" for done, how in ((steps, facts.get("method")), (made.iterations, made.method))
        )
    if found != wanted:
        raise ConfigError(f"{made.path} has {found}, expected {wanted}: {made.command}")
    return source


def arms_of(paper: Paper, keys: Sequence[Key], folder: Path, dataset: Dataset) -> list[Arm]:
    """Return the students by the ways in which they are trained; ConfigError as of `source_of`."""
    read = {name: source_of(paper, name, folder, dataset) for name in dict.fromkeys(key.set for key in keys)}
    jobs: dict[str, list[Job]] = {}
    for key in keys:
        source, arch = read[key.set], registry.parse(key.arch).name
        protocol = paper.made[key.set].protocol if key.set in paper.made else "fixed"
        jobs.setdefault(key.way, []).append(Job(source, paper.ipc(key.set), protocol, arch, key.seed))
    return [Arm(paper.ways[way], of_way) for way, of_way in jobs.items()]


def flop_of(paper: Paper, keys: Iterable[Key], dataset: str) -> float:
    """Return the FLOP of training and testing students, and the teachers that those of a set and seed share."""
    total, spec, taught = 0.0, spec_of(dataset), set[tuple[str, int, str, Recipe]]()
    for key in keys:
        conditions = Conditions.of(paper.ways[key.way], spec)
        seen = conditions.recipe.images_seen(paper.ipc(key.set) * spec.num_classes)
        archs = [key.arch]
        teacher = key.set, key.seed, conditions.teacher_arch, conditions.recipe
        if conditions.asks_teacher and teacher not in taught:
            taught.add(teacher)
            archs.append(conditions.teacher_arch)
        images = TRAINING * seen + DATASETS[dataset].test_images
        total += sum(images * classifier_flop(arch, spec.shape, spec.num_classes) for arch in archs)
        made = paper.made.get(key.set)
        if made is not None and made.protocol == "stream" and Path(made.path).exists():
            generator = generator_file.load(made.path).generator
            sizes = generator.arch, spec.shape, spec.num_classes, generator.width, generator.noise_dim
            total += seen * gan_flop(*sizes)[0]
    return total


def scored_before(config: Config, paper: Paper) -> list[Student]:
    """Return the students that the run's folder has, of a set that was distilled anew only those of the present one."""
    rows = grid.read_rows(config.run.root / config.name / stages.REPRODUCE)
    paths = {name: paper.made[name].path for name in {row.source for row in rows} & {*paper.made}}
    now = {name: sources.read(path, name).hash for name, path in paths.items() if Path(path).exists()}
    return students_of(paper, (row for row in rows if now.get(row.source, row.source_hash) == row.source_hash))


def reproduce(
    config: Config, inputs: Inputs, paper: Paper, arms: Sequence[Arm], page: Callable[[list[Student]], str]
) -> list[Student]:
    """Train and score the students of the arms that have no row in the run's folder yet, and return all of them.

    The main process writes there what `page` makes of them.
    """

    def keep(folder: Path, *rows: list[Row]) -> list[Path]:
        text = page(students_of(paper, itertools.chain(*rows)))
        write_atomically(folder / PAGE, lambda temporary: temporary.write_text(text))
        return [folder / PAGE]

    return students_of(paper, itertools.chain(*score_arms(stages.REPRODUCE, config, inputs, arms, keep)))


def students_of(paper: Paper, rows: Iterable[Row]) -> list[Student]:
    """Return the students that rows of `reproduce` tell of; rows of other sets, ways or students are left out."""
    specs = [spec_of(table.dataset) for table in paper.tables.values()]
    ways = {Conditions.of(settings, spec).hash: way for way, settings in paper.ways.items() for spec in specs}
    archs = {registry.parse(arch).name: arch for table in paper.tables.values() for arch in table.students}
    return [
        Student(
            set=row.source,
            way=ways[row.recipe_hash],
            arch=archs[row.arch],
            seed=row.seed,
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
        for row in rows
        if row.source in paper.sets | paper.made and row.recipe_hash in ways and row.arch in archs
    ]

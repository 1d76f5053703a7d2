"""All students of one evaluation: listed, shared among processes, kept as they finish, never trained twice."""

import json
import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import torch

from gdd.config import ConfigError
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.data.splits import Split
from gdd.evaluation.images import RealImages, StudentImages
from gdd.evaluation.recipe import Conditions, Job
from gdd.evaluation.row import Row
from gdd.evaluation.sources import FLOOR, REAL_NAMES, Protocol, Source
from gdd.evaluation.student import StudentTrainer
from gdd.models import registry
from gdd.models.cost import TRAINING, classifier_flop
from gdd.runtime import checkpoint, workers
from gdd.runtime.array import FOLDER, Array
from gdd.runtime.device import with_threads
from gdd.runtime.execution import Execution
from gdd.runtime.run import Run, progress_bar
from gdd.runtime.signals import Stopped, is_due
from gdd.runtime.workers import team_for
from gdd.sampling import ensemble_file

logger = logging.getLogger(__name__)

ROWS = "rows.jsonl"
_PARTS = "rows-*.jsonl"
SHARE = "share-"  # and its number: the folder of an array job's task, with rows of its own


def enumerate_jobs(
    sources: Sequence[Source],
    ipc: tuple[int, ...],
    floor_ipcs: tuple[int, ...],
    protocols: tuple[Protocol, ...],
    archs: Sequence[str],
    seeds: Sequence[int],
) -> list[Job]:
    """Return every student once, in the order of the table, seeds fastest.

    Args:
        sources: as `sources.complete` returns them.
        ipc: images per class of sets drawn from generators.
        floor_ipcs: images per class at which random real images are scored.
        protocols: of generators; everything else is fixed.
        archs: of the students; ConfigError if one is unknown.
        seeds: of the students, and of the sets drawn for them.
    """
    jobs = (
        Job(source, source_ipc, protocol, registry.parse(arch).name, seed)
        for source in sources
        for source_ipc in source.ipcs(floor_ipcs if source.kind == FLOOR else ipc)
        for protocol in source.protocols(protocols)
        for arch in archs
        for seed in seeds
    )
    return list(dict.fromkeys(jobs))


def read_rows(folder: Path) -> list[Row]:
    """Return the rows that an evaluation has written so far; a line cut by a kill is ignored."""
    rows: dict[tuple[object, ...], Row] = {}
    for path in [folder / ROWS, *sorted(folder.glob(_PARTS))]:
        for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
            try:
                row = Row.from_dict(json.loads(line))
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
            rows.setdefault(row.key, row)
    return list(rows.values())


def _merge(folder: Path, order: Sequence[tuple[object, ...]]) -> None:
    """Gather all processes' rows in one file of whole lines: those of other jobs, then those with the given keys.

    Those of an array job's tasks too and, in a task's folder, those above it.
    """
    places = {key: place for place, key in enumerate(order)}
    found = {row.key: row for part in (folder.parent, *folder.glob(f"{SHARE}*"), folder) for row in read_rows(part)}
    rows = sorted(found.values(), key=lambda row: places.get(row.key, -1))
    text = "".join(json.dumps(row.to_dict()) + "\n" for row in rows)
    checkpoint.write_atomically(folder / ROWS, lambda temporary: temporary.write_text(text))
    for path in folder.glob(_PARTS):
        path.unlink()


def _gather(run: Run, order: Sequence[tuple[object, ...]]) -> dict[tuple[object, ...], Row]:
    """Merge the rows of all processes when each has done its work, and return them by key on every process."""
    run.accelerator.wait_for_everyone()
    if run.is_main:
        _merge(run.folder, order)
    run.accelerator.wait_for_everyone()
    rows = read_rows(run.folder)
    # No process may append before all have read, or they would disagree on what is left to do.
    run.accelerator.wait_for_everyone()
    return {row.key: row for row in rows}


def score_jobs(
    jobs: Sequence[Job],
    conditions: Conditions,
    dataset: Dataset,
    run: Run,
    config_hash: str,
    array: Array | None = None,
) -> list[Row]:
    """Train and score every student that has no row yet, and return the rows of all, in the order of the jobs.

    Whole students are shared among the processes, at about equal cost to each.

    Args:
        jobs: the students.
        conditions: how all of them are trained.
        dataset: its test part is read only after a student has been trained.
        run: rows go to `rows.jsonl` in its folder, each as it finishes.
        config_hash: for the rows.
        array: shares students among tasks, if there is one. This process submits these and waits for them; or it is
            one of them, whose `run` is in a folder below the others' and which leaves them their students.

    Raises:
        ConfigError: an architecture or a source cannot be used, and nothing has been trained then; or a task failed.
        Stopped: a signal came, or run.max_minutes had passed after a student; the same call goes on.
    """
    spec = dataset.spec
    if conditions.selects:
        _require_held_out(jobs, conditions, dataset)
    team = team_for(run.settings, run.device, run.world_size, len(jobs))
    # Refuses networks that cannot be.
    executions = executions_of(jobs, conditions, dataset, run, max(team.workers, run.world_size))
    keys = [job.key(conditions, job.images(spec, len(dataset.train.labels))) for job in jobs]
    rows = _gather(run, keys)
    left = [place for place, key in enumerate(keys) if key not in rows]
    if run.is_main and len(left) < len(jobs):
        logger.info("evaluate: %d of %d students were scored before", len(jobs) - len(left), len(jobs))
    tally = Tally(jobs, keys, rows)

    costs = [estimated_cost(job, conditions, spec, len(dataset.train.labels)) for job in jobs]
    if array is not None and array.share is not None:
        left = [place for place in _dealt(keys, costs, run.folder.parent, array.tasks, array.share) if place in left]
    pending, costs = [jobs[place] for place in left], [costs[place] for place in left]
    train, val, seeds = dataset.train.to(run.device), dataset.val.to(run.device), {job.seed for job in jobs}
    make = partial(_scorer, train, val, spec, conditions, executions, run.device, run.folder, config_hash, len(seeds))
    if array is not None and array.share is None and pending:
        array.run_shares(len(pending), run.folder / FOLDER, run.settings.max_minutes)
    elif team.workers > 1 and len(pending) > 1:
        is_over = partial(is_due, run.settings.max_minutes)
        alone, deal = [[job] for job in pending], Deal(pending, costs, is_over)
        _keep(run, workers.run_tasks(run, team, alone, make, dataset.test, deal), len(pending), tally)
    else:
        mine = [pending[index] for index in assign_jobs(costs, run.world_size)[run.rank]]
        with with_threads(team.threads):
            score = make(lambda: dataset.test().to(run.device))
            _keep(run, _in_turn(run, grouped(mine, run.device), score), len(mine), tally)
    rows = _gather(run, keys)
    if run.is_main:
        tally.count(rows.values())
    missing = [key for key in keys if key not in rows]
    if missing:
        count = f"{len(jobs) - len(missing)} of {len(jobs)}"
        raise Stopped(f"evaluate: stopped after {count} students; the same command goes on")
    return [_with_source_of(job, rows[key]) for job, key in zip(jobs, keys, strict=True)]


def _dealt(
    keys: Sequence[tuple[object, ...]], costs: Sequence[float], folder: Path, tasks: int, share: int
) -> list[int]:
    """Return the places of one task's share of the students that have no row in the folder.

    It is the same whenever a task asks: the folder's rows change when all tasks have ended.
    """
    scored = {row.key for row in read_rows(folder)}
    left = [place for place, key in enumerate(keys) if key not in scored]
    return [left[index] for index in assign_jobs([costs[place] for place in left], tasks)[share]]


def _scorer(
    train: Split,
    val: Split,
    spec: DatasetSpec,
    conditions: Conditions,
    executions: dict[str, Execution],
    device: torch.device,
    folder: Path,
    config_hash: str,
    keep: int,
    read_test: Callable[[], Split],
) -> Callable[[Sequence[Job]], list[Row]]:
    """Return `StudentTrainer.score` of this process or, made there, of a worker's; `read_test` is called once."""
    real = RealImages(train, val, cache(read_test))
    images = StudentImages(real, spec, device, conditions.recipe.label_temperature, keep)
    return StudentTrainer(images, conditions, executions, folder, config_hash).score


def executions_of(
    jobs: Sequence[Job], conditions: Conditions, dataset: Dataset, run: Run, processes: int
) -> dict[str, Execution]:
    """Decide for each architecture, by its share of all jobs: what is left of them must not change a score."""
    spec, flop = dataset.spec, dict[str, float]()
    for job in jobs:
        cost = estimated_cost(job, conditions, spec, len(dataset.train.labels))
        flop[job.arch] = flop.get(job.arch, 0) + TRAINING * cost / processes
    for arch in conditions.teacher_archs:
        flop.setdefault(arch, 0)
    with torch.device("meta"):
        networks = {arch: registry.build(arch, spec.shape, spec.num_classes) for arch in flop}
    return {arch: run.execution([networks[arch]], conditions.precision, flop[arch]) for arch in flop}


def estimated_cost(job: Job, conditions: Conditions, spec: DatasetSpec, all_images: int) -> float:
    """Return the forward FLOP of training a job's candidates; what comes on top is about in proportion."""
    images = job.images(spec, all_images)
    seen = conditions.recipe_for(job.source.kind).images_seen(images) * max(1, len(conditions.candidates))
    return seen * classifier_flop(job.arch, spec.shape, spec.num_classes)


def assign_jobs(costs: Sequence[float], world_size: int) -> list[list[int]]:
    """Return the indices of each process's jobs, ascending: the largest job first, to the least loaded process.

    The largest load is at most 4/3 of the best possible one (Graham 1969).
    """
    assigned: list[list[int]] = [[] for _ in range(world_size)]
    loads = [0.0] * world_size
    for index in sorted(range(len(costs)), key=lambda index: -costs[index]):
        process = loads.index(min(loads))
        assigned[process].append(index)
        loads[process] += costs[index]
    return [sorted(indices) for indices in assigned]


def _require_held_out(jobs: Sequence[Job], conditions: Conditions, dataset: Dataset) -> None:
    """Refuse to select on validation images that a source or a teacher may have learned, or where there are none."""
    if len(dataset.val.labels) == 0:
        raise ConfigError("data.val_fraction is 0, so there are no images that anything can be selected on")
    origins = [(job.source.label, job.source.provenance) for job in jobs if job.source.kind not in REAL_NAMES]
    if conditions.teacher_file is not None:
        path = conditions.teacher_file.path
        origins.append((f"the teacher {path}", ensemble_file.load(path).provenance))
    for name, origin in origins:
        if "data" not in origin:
            raise ConfigError(
                f"the origin of {name} is unknown, so nothing can be selected on this validation part, which it may "
                "have been made from; select nothing for it"
            )
        if origin["data"] != dataset.fingerprint:
            raise ConfigError(
                f"{name} was made with another validation part, so nothing can be selected on this one; use its seed "
                "and its data settings"
            )


def _with_source_of(job: Job, row: Row) -> Row:
    """Return the row with its source's name and provenance of now, which may not be those of when it was written."""
    facts = job.source.provenance
    known = {"method": facts.get("method"), "stage": facts.get("stage"), "generator_seconds": facts.get("seconds")}
    known |= {"distillation_seed": job.source.distillation_seed, "source_revision": job.source.revision}
    return Row.from_dict({**row.to_dict(), "source": job.source.label, **known})


class Deal:
    """Which student each worker trains next."""

    def __init__(self, jobs: Sequence[Job], costs: Sequence[float], is_over: Callable[[], bool]) -> None:
        """Deal the jobs, of which each has its cost, until `is_over`, which is not asked before a worker's first."""
        self.left, self.is_over = dict(enumerate(costs)), is_over
        # What a trained teacher and a generated stream are kept by.
        self.data = [replace(job, arch="") for job in jobs]
        self.latest: dict[int, Job] = {}
        self.begun: set[Job] = set()

    def __call__(self, worker: int) -> int | None:
        """Return the index of a worker's next job; none if nothing is left or no more shall be begun.

        It is one on the data of its latest, whose stream and teacher the worker has; or else on data that nobody has
        begun; or else any: the costliest of these.
        """
        if not self.left or (worker in self.latest and self.is_over()):
            return None
        latest, data, left = self.latest.get(worker), self.data, self.left
        index = max(left, key=lambda index: (data[index] == latest, data[index] not in self.begun, left[index]))
        del left[index]
        self.latest[worker] = data[index]
        self.begun.add(data[index])
        return index


def trains_together(device: torch.device) -> bool:
    """Tell whether one step of several students takes less time here than a step of each: a CPU is busy with one."""
    return device.type == "cuda"


def grouped(jobs: Sequence[Job], device: torch.device) -> list[list[Job]]:
    """Return the jobs in groups to train at once: on a GPU those that differ by their seeds only, else one in each."""
    if not trains_together(device):
        return [[job] for job in jobs]
    by_everything_but_the_seed: dict[Job, list[Job]] = {}
    for job in jobs:
        by_everything_but_the_seed.setdefault(replace(job, seed=0), []).append(job)
    return list(by_everything_but_the_seed.values())


def _in_turn(
    run: Run, groups: Sequence[Sequence[Job]], score: Callable[[Sequence[Job]], list[Row]]
) -> Generator[list[Row], None, None]:
    """Score this process's jobs until run.max_minutes are over; a signal ends even students in training.

    A group that needs more memory than the GPU has is scored in halves.
    """
    waiting, told = [*groups], False
    while waiting:
        jobs = waiting.pop(0)
        try:
            rows = score(jobs)
        except torch.OutOfMemoryError:
            if len(jobs) == 1:
                raise
            if not told:
                logger.warning("evaluate: %d students need more memory than there is, so halves are tried", len(jobs))
            half, told = len(jobs) // 2, True
            waiting[:0] = [jobs[:half], jobs[half:]]
            continue
        yield rows
        if is_due(run.settings.max_minutes):
            return


class Tally:
    """Tells how accurate the students of a source are on average, once all of them are scored."""

    def __init__(self, jobs: Sequence[Job], keys: Sequence[tuple[object, ...]], rows: dict[tuple[object, ...], Row]):
        """Count the students by their keys; `rows` are those that were scored before."""
        self.rows = dict(rows)
        students: dict[Job, list[tuple[object, ...]]] = {}
        for job, key in zip(jobs, keys, strict=True):
            students.setdefault(replace(job, arch="", seed=0), []).append(key)
        self.unfinished = {source: keys for source, keys in students.items() if not rows.keys() >= {*keys}}

    def count(self, rows: Iterable[Row]) -> None:
        """Take rows, in any order and any number of times, and tell of each source whose last one is among them."""
        self.rows |= {row.key: row for row in rows}
        for source in [source for source, keys in self.unfinished.items() if self.rows.keys() >= {*keys}]:
            logger.info("%s", describe_source(source, [self.rows[key] for key in self.unfinished.pop(source)]))


def _keep(run: Run, groups: Generator[list[Row], None, None], total: int, tally: Tally) -> None:
    """Write and tell of rows as they come; a student that failed is told of at once."""
    if is_due(None):  # a signal came when a stage was about to end
        return
    path = run.folder / (ROWS if run.world_size == 1 else f"rows-{run.rank}.jsonl")
    title = "evaluate" if run.world_size == 1 else f"evaluate, process 1 of {run.world_size}"
    with progress_bar(run.is_main) as progress, closing(groups):
        task = progress.add_task(title, total=total)
        for rows in groups:
            with path.open("a") as file:
                file.writelines(json.dumps(row.to_dict()) + "\n" for row in rows)
            for row in rows:
                logger.log(logging.DEBUG if row.failure is None else logging.WARNING, "%s", describe(row))
            if run.is_main:
                tally.count(rows if run.world_size == 1 else read_rows(run.folder))
            progress.advance(task, len(rows))


def describe(row: Row) -> str:
    """Return one line about a finished student."""
    score = f"failed: {row.failure}" if row.accuracy is None else f"{row.accuracy:.2f} %"
    return (
        f"{_named(row.source, row.distillation_seed, row.ipc, row.protocol)}: {row.arch} seed {row.seed} {score} "
        f"({row.optimizer_steps} steps, loss {row.train_loss:.4f}, {row.seconds:.1f} s)"
    )


def describe_source(job: Job, rows: Sequence[Row]) -> str:
    """Return one line about the finished students of a job's source, over all seeds and architectures."""
    scores = [row.accuracy for row in rows if row.accuracy is not None]
    mean = f"{sum(scores) / len(scores):.2f} %" if scores else "failed"
    students = f"{len(rows)} students" if len(rows) > 1 else "1 student"
    if len(scores) < len(rows):
        students += f", {len(rows) - len(scores)} of which failed"
    name = _named(job.source.label, job.source.distillation_seed, job.ipc, job.protocol)
    return f"{name}: {mean} (mean of {students}, {sum(row.seconds for row in rows):,.1f} s)"


def _named(source: str, distillation_seed: int | None, ipc: int | None, protocol: Protocol) -> str:
    seed = "" if distillation_seed is None else f" of seed {distillation_seed}"
    return f"{source}{seed}, {'all images' if ipc is None else f'ipc {ipc}'}, {protocol}"

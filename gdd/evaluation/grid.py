"""All students of one evaluation: listed, dealt to processes, kept as they finish, never trained twice."""

import json
import logging
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.flop_counter import FlopCounterMode

from gdd.config import Config, ConfigError, stable_hash
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.data.splits import Split
from gdd.evaluation.protocol import FLOOR, Conditions, Job, Recipe, Source, open_sources
from gdd.evaluation.row import Row
from gdd.evaluation.student import Real, StudentTrainer
from gdd.models import registry
from gdd.runtime import checkpoint
from gdd.runtime.run import Run
from gdd.runtime.signals import Stopped, is_due

logger = logging.getLogger(__name__)

ROWS = "rows.jsonl"
_PARTS = "rows-*.jsonl"

__all__ = ["ROWS", "Row", "enumerate_jobs", "evaluate", "read_rows"]


def enumerate_jobs(config: Config, sources: Sequence[Source], floors: tuple[int, ...]) -> list[Job]:
    """Return every student in the order of the table, seeds fastest.

    Args:
        config: evaluate.ipc, protocols, archs and seeds.
        sources: opened, floor first.
        floors: IPC at which random real images are scored.
    """
    settings = config.evaluate
    archs = dict.fromkeys(registry.parse(arch).name for arch in settings.archs)
    wanted = tuple(dict.fromkeys(settings.ipc))
    return [
        Job(source, ipc, protocol, arch, seed)
        for source in sources
        for ipc in source.ipcs(floors if source.kind == FLOOR else wanted)
        for protocol in source.protocols(tuple(dict.fromkeys(settings.protocols)))
        for arch in archs
        for seed in dict.fromkeys(settings.seeds)
    ]


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


def _merge(folder: Path) -> None:
    """Gather all processes' rows in one file of whole lines."""
    rows = read_rows(folder)
    text = "".join(json.dumps(row.to_dict()) + "\n" for row in rows)
    checkpoint.write_atomically(folder / ROWS, lambda temporary: temporary.write_text(text))
    for path in folder.glob(_PARTS):
        path.unlink()


def _gather(run: Run) -> list[Row]:
    """Merge on the main process, when all have done their work, and return all rows on every process."""
    run.accelerator.wait_for_everyone()
    if run.is_main:
        _merge(run.folder)
    run.accelerator.wait_for_everyone()
    rows = read_rows(run.folder)
    # Nobody may append before everybody has read, or the processes would disagree on what is left to do.
    run.accelerator.wait_for_everyone()
    return rows


def evaluate(
    config: Config,
    dataset: Dataset,
    run: Run,
    sources: list[tuple[str, str]],
    recipe: Recipe | None = None,
    ceiling: bool = True,
) -> list[Row]:
    """Train and score every student of `config.evaluate` that has no row yet, and return the rows of all.

    Whole students are dealt to processes, of about equal cost to each. Real random images at every IPC are scored
    too, whether named or not.

    Args:
        config: its `evaluate` part decides.
        dataset: its test part is read only after a student has been trained.
        run: rows go to `rows.jsonl` in its folder, each as it finishes.
        sources: names for the table, and real:random, real:all, a set's path or a generator's.
        recipe: instead of the config's.
        ceiling: whether all real images are scored if they are not named.

    Raises:
        ConfigError: a source, an architecture or an IPC cannot be used; nothing has been trained then.
        Stopped: a signal came, or run.max_minutes had passed after a student; the same call goes on.
    """
    settings, spec = config.evaluate, dataset.spec
    opened, floors = open_sources(sources, settings.ipc, dataset, ceiling)
    conditions = Conditions.of(settings, spec, recipe)
    if conditions.selects:
        _require_held_out(opened, dataset)
    jobs = enumerate_jobs(config, opened, floors)
    for arch in {job.arch for job in jobs} | ({conditions.teacher_arch} if conditions.teacher != "none" else set()):
        registry.build(arch, spec.shape, spec.num_classes)  # refuses what these images do not allow
    done = {row.key for row in _gather(run)}
    pending = [job for job in jobs if job.key(conditions) not in done]
    if run.is_main and len(pending) < len(jobs):
        logger.info("evaluate: %d of %d students were scored before", len(jobs) - len(pending), len(jobs))

    @lru_cache(maxsize=1)
    def test() -> Split:
        return _on(run, dataset.test())

    train, val = _on(run, dataset.train), _on(run, dataset.val)
    shown = stable_hash(settings, conditions.hash, run.fingerprint)
    classroom = StudentTrainer(Real(train, val, test), spec, conditions, run.device, shown, keep=len(settings.seeds))
    costs = [estimated_cost(job, conditions, spec, len(dataset.train.labels)) for job in pending]
    mine = assign_jobs(costs, run.world_size)[run.rank]
    _work(run, classroom, [pending[index] for index in mine])
    found = {row.key: row for row in _gather(run)}
    missing = [job for job in jobs if job.key(conditions) not in found]
    if missing:
        count = f"{len(jobs) - len(missing)} of {len(jobs)}"
        raise Stopped(f"evaluate: stopped after {count} students; the same command goes on")
    return [_named(found[job.key(conditions)], job) for job in jobs]


@cache
def _flop_per_image(arch: str, shape: tuple[int, int, int], num_classes: int) -> float:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        registry.build(arch, shape, num_classes)(torch.zeros(2, *shape))
    return counter.get_total_flops() / 2


def estimated_cost(job: Job, conditions: Conditions, spec: DatasetSpec, all_images: int) -> float:
    """Return the forward FLOP of training a job's candidates; what comes on top is about in proportion."""
    images = all_images if job.ipc is None else job.ipc * spec.num_classes
    seen = conditions.recipe_for(job.source.kind).epochs * images * max(1, len(conditions.candidates))
    return seen * _flop_per_image(job.arch, spec.shape, spec.num_classes)


def assign_jobs(costs: Sequence[float], hands: int) -> list[list[int]]:
    """Return which jobs each of `hands` processes gets, in their order: the dearest first, to whom has least.

    The most loaded has at most 4/3 of the best possible load (Graham 1969).
    """
    dealt: list[list[int]] = [[] for _ in range(hands)]
    loads = [0.0] * hands
    for index in sorted(range(len(costs)), key=lambda index: -costs[index]):
        least = loads.index(min(loads))
        dealt[least].append(index)
        loads[least] += costs[index]
    return [sorted(hand) for hand in dealt]


def _on(run: Run, split: Split) -> Split:
    return Split(split.images_u8.to(run.device), split.labels.to(run.device))


def _require_held_out(sources: Sequence[Source], dataset: Dataset) -> None:
    """Refuse to select on validation images that a source may have been distilled from."""
    for source in sources:
        if source.provenance.get("data", dataset.fingerprint) != dataset.fingerprint:
            raise ConfigError(
                f"{source.label} was distilled with another validation part, so nothing can be selected on this one; "
                "use its seed and its data settings"
            )


def _named(row: Row, job: Job) -> Row:
    """Return the row with what this evaluation knows of its source, whose file may have been described anew."""
    facts = job.source.provenance
    known = {"method": facts.get("method"), "stage": facts.get("stage"), "generator_seconds": facts.get("seconds")}
    return Row.from_dict({**row.to_dict(), "source": job.source.label, **known})


def _work(run: Run, classroom: StudentTrainer, pending: list[Job]) -> None:
    """Score this process's jobs until run.max_minutes are over; a signal ends even the student at hand."""
    path = run.folder / (ROWS if run.world_size == 1 else f"rows-{run.rank}.jsonl")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    title = "evaluate" if run.world_size == 1 else f"evaluate, process 1 of {run.world_size}"
    with Progress(*columns, disable=not run.is_main) as progress:
        for job in progress.track(pending, description=title):
            if is_due(None):  # a signal came when a stage was about to end
                return
            row = classroom.score(job)
            with path.open("a") as file:
                file.write(json.dumps(row.to_dict()) + "\n")
            logger.info("%s", describe(row))
            if is_due(run.settings.max_minutes):
                return


def describe(row: Row) -> str:
    """Return one line about a finished student."""
    amount = "all images" if row.ipc is None else f"ipc {row.ipc}"
    return (
        f"{row.source}, {amount}, {row.protocol}: {row.arch} seed {row.seed} {row.accuracy:.2f} % "
        f"({row.optimizer_steps} steps, loss {row.train_loss:.4f}, {row.seconds:.1f} s)"
    )

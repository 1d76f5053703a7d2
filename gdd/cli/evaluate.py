"""`gdd evaluate`, `compare`, `landscape` and `audit`: what is measured of sources."""

from argparse import SUPPRESS
from dataclasses import replace
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from gdd.checks import said_of
from gdd.cli.command import Command, add_array, add_settings, array_of, checked_config, opened
from gdd.config import Config, ConfigError, RunConfig
from gdd.config.stages import AUDIT, COMPARE, DD_RANKING, ENSEMBLE, EVALUATE, LANDSCAPE
from gdd.evaluation.budget import Budget, parse_budget
from gdd.evaluation.named import (
    FLOOR,
    NO_TEACHER,
    STREAM_CEILING,
    TRAINED_TEACHERS,
    source_path,
    split_filter,
    teacher_path,
)

_NAMED = "zoo:NAME, hub:USER/NAME, hub:datasets/USER/NAME"
_REAL = "real:random, real:herded, real:crops, real:fraction=SHARE, real:all, real:stream"
_SOURCES = f"run folders, stored sets, {_NAMED}, {_REAL}"


def _with_sources(options: Namespace, command: str, sources: list[str]) -> Namespace:
    """Take the sources of the command line into the settings of the evaluation, and return these."""
    settings = options.evaluate
    if sources and settings.sources:
        listed = f"[{', '.join(settings.sources)}]"
        raise ConfigError(f"evaluate.sources is {listed}, expected none beside {' '.join(sources)} after gdd {command}")
    settings.sources = sources or settings.sources
    return settings


def _add_evaluate_arguments(parser: ArgumentParser) -> None:
    add_settings(parser)
    add_array(parser)
    # Without a default, so that --print_config leaves it out: other commands take no such key.
    named = f"{_SOURCES}; none: those of evaluate.sources, or what the run has distilled"
    parser.add_argument("sources", type=str, nargs="*", default=SUPPRESS, help=named)
    parser.set_defaults(name=EVALUATE)


def _evaluate(options: Namespace, console: Console) -> None:
    named = options.get("sources", [])
    _with_sources(options, "evaluate", named)
    if not named and options.name == EVALUATE:  # a run scores itself, or its config's sources, in its own folder
        options.name = Config().name
    config = checked_config(options, scored=True)
    array = array_of(options, config)
    from gdd import pipeline

    sources = pipeline.read_sources(config) or pipeline.own_sources(config)
    if named:  # a config that lists its sources says what data they stand for
        config = pipeline.with_data_of_sources(config, sources)
    with opened(config, options.dry_run, console, [EVALUATE], sources, array=array) as inputs:
        if inputs is not None:
            from gdd.report import tables

            rows = pipeline.evaluate(config, inputs)
            console.print(tables.Terminal(tables.sections(rows, brief=True)))


def _add_compare_arguments(parser: ArgumentParser) -> None:
    add_settings(parser)
    add_array(parser)
    named = f"{_SOURCES}; with --budget sets and generators alone, or none"
    parser.add_argument("sources", type=str, nargs="*", default=SUPPRESS, help=named)
    budget = "compare sources of equal bytes at equal steps: 25KiB, 1MiB, 25600, or the bytes of images, as in 10ipc"
    parser.add_argument("--budget", type=str | None, default=None, help=budget)
    parser.add_argument("--arch", type=str, nargs="+", help="students, instead of evaluate.archs")
    parser.add_argument("--ipc", type=int, nargs="+", help="images per class to draw, instead of evaluate.ipc")
    parser.add_argument("--mark", type=float, nargs="*", default=[], help="published accuracies to draw, in percent")
    replicates = "count sources of equal settings as one method, with intervals over their seeds and the students'"
    parser.add_argument("--replicates", action="store_true", help=replicates)
    scores = "add DD-Ranking's HLR, IOR, LRS and ARS, for which more students are trained"
    parser.add_argument("--scores", type=Literal["dd-ranking"] | None, default=None, help=scores)
    parser.set_defaults(name="compare")


def _comparison(options: Namespace) -> Config:
    """Return the settings of the comparison, flags such as --ipc included."""
    settings = _with_sources(options, "compare", options.get("sources", []))
    if not settings.sources and options.budget is None:
        raise ConfigError(f"no sources are named, expected some of these after gdd compare: {_SOURCES}; or --budget")
    settings.archs, settings.ipc = options.arch or settings.archs, options.ipc or settings.ipc
    if options.scores and "fixed" not in settings.protocols:
        raise ConfigError(f"evaluate.protocols is {settings.protocols}, expected fixed among them for --scores")
    return checked_config(options, scored=True)


def _compare(options: Namespace, console: Console) -> None:
    if options.budget is not None:
        _compare_within(options, console)
        return
    config = _comparison(options)
    array = array_of(options, config)
    from gdd import pipeline
    from gdd.report import compare as comparison
    from gdd.report import tables

    sources = pipeline.read_sources(config)
    config = pipeline.with_data_of_sources(config, sources)
    compared = comparison.compared(sources, options.replicates)
    ranked = options.scores is not None
    stages = ["compare", "dd-ranking"] if ranked else ["compare"]
    scored = [source.source for source in compared]
    with opened(config, options.dry_run, console, stages, scored, array=array) as inputs:
        if inputs is not None:
            sections = pipeline.compare(
                config, inputs, compared=compared, marks=options.mark, replicates=options.replicates, scores=ranked
            )
            console.print(tables.Terminal(sections))


def _budget_of(options: Namespace) -> Budget:
    """Return the budget that the command line tells, and its teacher; ConfigError for what has no place beside it."""
    budget, settings = parse_budget(options.budget), options.evaluate
    for flag in ("ipc", "mark", "submit", "share"):
        if options.get(flag):
            raise ConfigError(f"--{flag} is given, expected none with --budget")
    for text in [*options.get("sources", []), *settings.sources]:
        if source_path(text) is None or split_filter(text)[1] is not None:
            raise ConfigError(
                f"{text} is named, expected sets and generators alone with --budget, which adds real images and "
                "chooses samples itself"
            )
    if "fixed" not in settings.protocols:
        raise ConfigError(f"evaluate.protocols is {settings.protocols}, expected fixed among them with --budget")
    if settings.select_alpha or settings.select_temperature:
        raise ConfigError("evaluate.select_alpha or evaluate.select_temperature is set, expected neither with --budget")
    if settings.teacher in TRAINED_TEACHERS:
        raise ConfigError(
            f"evaluate.teacher is {settings.teacher}, expected with --budget an ensemble's path, or none to have one "
            "trained first"
        )
    with said_of("evaluate.teacher"):
        return replace(budget, teacher=teacher_path(settings.teacher))


def _compare_within(options: Namespace, console: Console) -> None:
    budget = _budget_of(options)
    # It chooses and labels; no student imitates it.
    options.evaluate.teacher = NO_TEACHER
    config = _comparison(options)
    from gdd import pipeline
    from gdd.report import compare as comparison
    from gdd.report import tables

    read = pipeline.read_sources(config)
    config = pipeline.with_data_of_sources(config, read)
    labelled = comparison.compared(read, options.replicates) if read else []
    named = [compared.source for compared in labelled if compared.source.kind != FLOOR]
    ranked = options.scores is not None
    stages = [ENSEMBLE] * (budget.teacher is None) + [COMPARE] + [DD_RANKING] * ranked
    with opened(config, options.dry_run, console, stages, named, budget=budget) as inputs:
        if inputs is not None:
            sections = pipeline.compare_within(budget, config, inputs, named, options.replicates, ranked)
            console.print(tables.Terminal(sections))


def _add_landscape_arguments(parser: ArgumentParser) -> None:
    add_settings(parser)
    source = f"what the student is trained on: a run folder, a stored set, {_NAMED}, real:random, real:all"
    parser.add_argument("source", type=str, help=source)
    parser.add_argument("--arch", type=str, required=True, help="the student; its seed is the first of evaluate.seeds")
    parser.add_argument("--ipc", type=int, default=10, help="images per class to draw, where the source is no set")
    parser.add_argument("--eigenvalues", type=int, default=20, help="of the Hessian, the largest ones, at least 2")
    reach = "how far the surface goes along an eigenvector of length 1, above 0"
    parser.add_argument("--reach", type=float, default=0.25, help=reach)
    parser.set_defaults(name="landscape")


def _one_student(options: Namespace) -> Config:
    """Return the settings of the student that the command line names."""
    settings = _with_sources(options, "landscape", [options.source])
    if settings.select_alpha or settings.select_temperature:
        raise ConfigError("evaluate.select_alpha or evaluate.select_temperature is set, expected neither here")
    if options.source == STREAM_CEILING:
        raise ConfigError(f"the source is {STREAM_CEILING}, expected images that stay the same")
    if options.eigenvalues < 2:
        raise ConfigError(f"--eigenvalues is {options.eigenvalues}, expected at least 2: the surface needs two")
    if not 0 < options.reach < float("inf"):
        raise ConfigError(f"--reach is {options.reach}, expected a number above 0")
    settings.archs, settings.ipc = [options.arch], [options.ipc]
    settings.seeds, settings.protocols = settings.seeds[:1], ["fixed"]
    return checked_config(options, scored=True)


def _landscape(options: Namespace, console: Console) -> None:
    config = _one_student(options)
    from gdd import pipeline
    from gdd.report import measured

    sources = pipeline.read_sources(config)
    config = pipeline.with_data_of_sources(config, sources)
    with opened(config, options.dry_run, console, [LANDSCAPE], sources) as inputs:
        if inputs is not None:
            landscape = pipeline.landscape(config, inputs, count=options.eigenvalues, reach=options.reach)
            console.print(measured.landscape_summary(landscape), soft_wrap=True)


def _add_audit_arguments(parser: ArgumentParser) -> None:
    add_settings(parser)
    source = (
        f"what is audited: a run folder, a generator, a stored set, {_NAMED}; where it lies in a run, so does the audit"
    )
    parser.add_argument("source", type=str, help=source)
    parser.add_argument("--ipc", type=int, default=100, help="samples per class to draw, where the source is no set")
    parser.set_defaults(name="audit")


def _audit_settings(options: Namespace) -> Config:
    """Return the settings of the audit that the command line names."""
    settings = _with_sources(options, "audit", [options.source])
    path = source_path(options.source)
    if path is None:
        raise ConfigError(f"the source is {options.source}, expected a generator or a stored set")
    run = _run_of(path)
    if (options.name, options.run.root) == ("audit", RunConfig().root) and run is not None:
        options.name, options.run.root = run.name, run.parent
    settings.ipc = [options.ipc]
    return checked_config(options, scored=True)


def _run_of(path: Path) -> Path | None:
    """Return the run's folder, given it, a stage's folder or a stage's file; none for other paths."""
    if path.is_dir() and any(path.glob("*/config.json")):
        return path.resolve()
    stage = path.resolve() if path.is_dir() else path.resolve().parent
    return stage.parent if (stage / "config.json").exists() else None


def _audit(options: Namespace, console: Console) -> None:
    config = _audit_settings(options)
    from gdd import pipeline
    from gdd.report import measured, tables

    sources = pipeline.read_sources(config)
    config = pipeline.with_data_of_sources(config, sources)
    if (stored := sources[0].stored_ipc) is not None:
        config = replace(config, evaluate=replace(config.evaluate, ipc=(stored,)))
    with opened(config, options.dry_run, console, [AUDIT], sources) as inputs:
        if inputs is not None:
            audit = pipeline.audit(config, inputs, sources[0])
            console.print(tables.Terminal([measured.audit_section(audit)]))


COMMANDS = (
    Command(
        "evaluate", "train fresh students on any sets and score them on real data", _add_evaluate_arguments, _evaluate
    ),
    Command("compare", "score methods beside each other and draw their curves", _add_compare_arguments, _compare),
    Command(
        "landscape", "measure how sharp the minimum is that a student has found", _add_landscape_arguments, _landscape
    ),
    Command("audit", "tell whether a generator or a set copies its training images", _add_audit_arguments, _audit),
)

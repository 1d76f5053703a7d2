"""One parser for the three scripts and the console command `gdd`; the only place that prints and exits."""

import itertools
import logging
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_loader, set_parsing_settings
from rich.console import Console

from gdd.cli.tools import TOOLS
from gdd.config import Config, ConfigError
from gdd.config.reading import MOST_CHARACTERS, YAML_ERRORS, read_yaml
from gdd.runtime.signals import Stopped, on_signals, with_launcher

if TYPE_CHECKING:
    from accelerate import Accelerator

set_parsing_settings(docstring_parse_attribute_docstrings=True)
set_loader("yaml", read_yaml, YAML_ERRORS)

MOST_SAID = 800  # characters of a sentence

STAGES = {
    "train-gan": "stage 1: pretrain the conditional GAN",
    "distill": "stage 1 if needed, stage 2, and the score of both",
    "evaluate": "train fresh students on any sets and report their accuracy on real test data",
    "compare": "score several methods beside each other, each against the first, and draw their curves",
}


def _stage_parser(program: str, description: str) -> ArgumentParser:
    parser = ArgumentParser(prog=program, description=description, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file of settings; flags after it win")
    parser.add_argument("--dry_run", action="store_true", help="say what would be done and stop")
    parser.add_class_arguments(Config, None, fail_untyped=True)
    return parser


def _compare_parser(program: str) -> ArgumentParser:
    parser = _stage_parser(program, STAGES["compare"])
    parser.add_argument("sources", type=str, nargs="+", help="run folders, stored sets, real:random, real:all")
    parser.add_argument("--arch", type=str, nargs="+", help="students, instead of evaluate.archs")
    parser.add_argument("--ipc", type=int, nargs="+", help="images per class to draw, instead of evaluate.ipc")
    parser.add_argument("--mark", type=float, nargs="*", default=[], help="published accuracies to draw, in percent")
    parser.set_defaults(name="compare")
    return parser


def _compared(config: Config, values: Namespace) -> Config:
    """Put what `gdd compare` was told beside the settings into them."""
    settings = config.evaluate
    if settings.sources:
        raise ConfigError(f"evaluate.sources is {settings.sources}, expected none beside those of gdd compare")
    archs, ipc = tuple(values.arch or settings.archs), tuple(values.ipc or settings.ipc)
    return replace(config, evaluate=replace(settings, sources=tuple(values.sources), archs=archs, ipc=ipc))


def _report_parser(program: str) -> ArgumentParser:
    parser = ArgumentParser(prog=program, description="Write an evaluation's tables again.", exit_on_error=False)
    parser.add_argument("folder", type=Path, help="run folder of evaluate.py, with its rows.jsonl")
    return parser


def _run_stage(command: str, config: Config, values: Namespace, console: Console) -> None:
    from gdd.runtime.device import (
        make_accelerator,  # torch and friends take seconds to import; --help need not wait for them
    )

    accelerator = make_accelerator(config.run)
    with on_signals():
        _work(command, config, values, console, accelerator)


def _work(command: str, config: Config, values: Namespace, console: Console, accelerator: "Accelerator") -> None:
    from gdd import pipeline
    from gdd.report import tables

    if command == "compare":
        config = pipeline.with_data_of_sources(config)
    with accelerator.local_main_process_first():  # it downloads or decodes, the others find the result
        dataset = pipeline.open_data(config.data, config.seed)
    pipeline.check_networks(config, dataset.spec)
    if command == "evaluate" or (command == "distill" and config.score):
        pipeline.check_scoring(config, dataset)
    if values.dry_run:
        from gdd.cli import dry_run

        console.print(dry_run.table(config, dataset.spec))
        return
    try:
        if command == "train-gan":
            pipeline.train_gan(config, dataset, accelerator)
        elif command == "distill":
            pipeline.distill(config, dataset, accelerator)
        if command == "evaluate" or (command == "distill" and config.score):
            _, rows = pipeline.evaluate(config, dataset, accelerator)
            console.print(tables.Terminal(tables.sections(rows, brief=True)))
        elif command == "compare":
            console.print(pipeline.compare(config, dataset, accelerator, values.mark))
    finally:
        accelerator.end_training()


def _sentence(error: Exception) -> str:
    """Fold the parser's message into one line in plain words."""
    text = " ".join(str(error).split())
    text = "".join(character if character.isprintable() else "?" for character in text)  # a file's may steer a terminal
    text = re.sub(r"^(Parser key|Problem in key) ", "", text)
    text = re.sub(r"(a )?<class '(?:\w+\.)*(\w+)'>", r"\2", text)
    text = re.sub(r"(a )?typing\.Literal\[(.*?)\]", r"one of \2", text)
    text = text.replace("Expected tuple.", "Expected a list such as [a, b].")
    text = re.sub(
        r"Does not validate against any .* Errors: - (.*) Given value type: \w+ Given value: (.*)", _either, text
    )
    text = re.sub(r'^"([\w.]+)": ', r"\1: ", text)
    return text if len(text) <= MOST_SAID else f"{text[:MOST_SAID]} ..."


def _either(union: re.Match[str]) -> str:
    """Say what an optional setting takes."""
    kinds = [error.removeprefix("Expected ").replace("NoneType", "null") for error in union[1].split(" - ")]
    return f"{union[2]} is none of what was expected: {' or '.join(kinds)}"


def _speaks() -> bool:
    """Only the first of several processes does."""
    return os.environ.get("RANK", "0") == "0"


def _limit(error: Exception) -> str | None:
    """Say what the machine or its libraries cannot do; none for our own mistakes."""
    reason = str(error).strip().partition("\n")[0][:200]
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in reason:
        return f"there is not enough memory ({reason}); choose smaller batches, widths or images"
    if "Connection closed" in reason or "Connection reset" in reason:
        return f"another process has ended ({reason}); what stopped it stands above or in its own output"
    if "deterministic implementation" in reason:
        return f"run.deterministic is True, but {reason}"
    return None


def _config_files(arguments: Sequence[str]) -> list[str]:
    """Return what --config names; ConfigError if that is too large to be one."""
    joined = [given.partition("=")[2] for given in arguments if given.startswith("--config=")]
    named = [*joined, *(given for flag, given in itertools.pairwise(arguments) if flag == "--config")]
    for name in named:
        if os.path.isfile(name) and os.path.getsize(name) > MOST_CHARACTERS:
            raise ConfigError(f"--config {name} has more than {MOST_CHARACTERS} bytes, expected a file of settings")
    return named


def _parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    files = _config_files(arguments)
    try:
        return parser.parse_args(list(arguments))
    except ArgumentError as error:
        if files and str(error).startswith(("Problems parsing config", "Unexpected config")):
            raise ConfigError(f"--config {', '.join(files)} cannot be used: {error}") from error
        raise
    except UnicodeDecodeError as error:
        raise ConfigError(f"--config names a file that is no UTF-8 text ({error.reason})") from error
    except OverflowError as error:  # the parser makes floats of whole numbers
        raise ConfigError(f"a number of the settings is too large ({error})") from error


def _config(parser: ArgumentParser, values: Namespace) -> Config:
    try:
        made = parser.instantiate(values)
    except TypeError as error:
        raise ConfigError(f"a section or value of the config has the wrong type, such as null: {error}") from error
    return Config(**{name: getattr(made, name) for name in Config.__dataclass_fields__})


def parse_config(arguments: Sequence[str]) -> Config:
    """Return the config of a stage's command line, such as `["--config", "configs/digits.yaml", "--seed", "1"]`."""
    parser = _stage_parser("gdd", "")
    return _config(parser, _parse(parser, arguments))


def run(command: str, arguments: Sequence[str], program: str) -> None:
    """Parse and do one command; ConfigError and ArgumentError are the user's mistakes."""
    width = None if sys.stdout.isatty() else 120  # a log file has room for whole column names
    console = Console(quiet=not _speaks(), width=width)
    if command in TOOLS:
        make_parser, act = TOOLS[command]
        parser = make_parser(program)
        act(parser.parse_args(list(arguments)))
        return
    if command == "report":
        from gdd.report import statistics, tables

        options = _report_parser(program).parse_args(list(arguments))
        rows = statistics.read_rows(options.folder)
        tables.write(options.folder, rows)
        console.print(tables.Terminal(tables.sections(rows, brief=True)))
        return
    parser = _compare_parser(program) if command == "compare" else _stage_parser(program, STAGES[command])
    values = _parse(parser, arguments)
    config = _config(parser, values)
    if command == "compare":
        config = _compared(config, values)
    console.print(parser.dump(values), style="dim", highlight=False, markup=False, soft_wrap=True)
    _run_stage(command, config, values, console)


def main(arguments: Sequence[str] | None = None, program: str = "gdd") -> int:
    """Run a command line such as `["sample", "runs/digits/refine", "--ipc", "10"]` and return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    commands = [*STAGES, *TOOLS, "report"]
    level = logging.INFO if _speaks() else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        if not given or given[0] in ("-h", "--help"):
            Console().print(f"usage: gdd COMMAND ... with COMMAND one of {', '.join(commands)}", markup=False)
            return 0
        command, rest = given[0], given[1:]
        if command not in commands:
            raise ConfigError(f"{command!r} is no command, expected one of {', '.join(commands)}")
        with_launcher()
        run(command, rest, program if program != "gdd" else f"gdd {command}")
    except Stopped as stop:
        Console(quiet=not _speaks()).print(str(stop), markup=False)
    except (ConfigError, ArgumentError) as error:
        errors.print(f"{program}: {_sentence(error)}", markup=False)
        return 2
    except OSError as error:
        reason = error.strerror or type(error).__name__
        errors.print(f"{program}: {error.filename or 'a file'} cannot be used ({reason})", markup=False)
        return 2
    except (RuntimeError, MemoryError) as error:
        if (limit := _limit(error)) is None:
            raise
        errors.print(f"{program}: {limit}", markup=False)
        return 2
    return 0


def script(*command: str, program: str = "gdd") -> NoReturn:
    """Entry point of `gdd`, and of the scripts at the project's root, which put their command before what is given.

    One of several processes does without Python's own end: Gloo's threads outlive the process group, and one that lets
    go of a tensor only then would abort the process (SIGABRT; github.com/pytorch/pytorch/pull/179291).
    """
    code = main([*command, *sys.argv[1:]], program)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)

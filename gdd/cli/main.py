"""The parser of `gdd` and of the scripts, its errors and its exit codes."""

import io
import itertools
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar, NoReturn

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_loader, set_parsing_settings
from rich.console import Console

from gdd import __version__
from gdd.cli import adopt, convert, doctor, evaluate, init, push, report, reproduce, sample, train
from gdd.cli.command import printable, read_config
from gdd.config import Config, ConfigError
from gdd.runtime.signals import Stopped, with_launcher

set_parsing_settings(docstring_parse_attribute_docstrings=True, add_print_completion_argument=True)
_MODULES = (init, train, evaluate, reproduce, sample, adopt, convert, push, report, doctor)
COMMANDS = {command.name: command for module in _MODULES for command in module.COMMANDS}
_LOG_WIDTH = 100  # of a terminal that is none, such as a log file
_NO_SETTINGS = "it holds no settings, expected keys with their values"
_MOST_SAID = 800  # characters of a sentence
_TAG = "tag:yaml.org,2002:"


class _YamlLoader(yaml.SafeLoader):
    """Refuses a key that stands twice, and takes no word or leading zero for something else.

    Unlike in YAML 1.1, `off`, `on`, `yes` and `no` are words, which the parser takes for true or false only where a
    setting is one of both; and 010 is not 8.
    """

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag in (f"{_TAG}null", f"{_TAG}merge")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_document(self, node: yaml.Node) -> Any:
        _require_each_once(node, "", set())
        return super().construct_document(node)


for _kind, _pattern, _first in (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", "[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:(?:[0-9][0-9_]*(?:\.[0-9_]*|(?=[eE]))|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|\.inf|\.nan)",
        "-+.0123456789",
    ),
):
    _YamlLoader.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(rf"(?:{_pattern})\Z"), [*_first])


def load_yaml(text: str) -> Any:
    """Return what a YAML document holds; YAMLError if it is none, has a tag, or has a key twice at any depth."""
    return yaml.load(text, Loader=_YamlLoader)


def _require_each_once(node: yaml.Node, place: str, seen: set[yaml.Node]) -> None:
    """Refuse a mapping in which a key stands twice, be it as a section and as part of a dotted key.

    Args:
        node: a part of a document.
        place: the dotted keys that lead to it.
        seen: parts that were looked at, which others may refer to any number of times.
    """
    if node in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(node)
    if isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _require_each_once(value, place, seen)
        return
    given, implied = set[str](), set[str]()
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != f"{_TAG}merge":
            parts = key.value.split(".")
            sections = {".".join(parts[:end]) for end in range(1, len(parts))}
            twice = ({key.value} & (given | implied)) | (sections & given)
            if twice:
                raise yaml.YAMLError(f"{place}{min(twice)} stands in it twice")
            given.add(key.value)
            implied |= sections
            _require_each_once(value, f"{place}{key.value}.", seen)


set_loader("yaml", load_yaml, (yaml.YAMLError,))


@cache
def _parser(program: str) -> ArgumentParser:
    """Return the parser of all commands; a script's `program` stands for the command that it puts first."""
    parser = ArgumentParser(
        prog="gdd",
        version=__version__,
        description="Distil an image dataset into a small generator, and prove what the distilled data is worth.",
        exit_on_error=False,
    )
    subcommands = parser.add_subcommands(dest="command", metavar="COMMAND")
    for command in COMMANDS.values():
        subparser = ArgumentParser(description=command.help, exit_on_error=False)
        command.add_arguments(subparser)
        subcommands.add_subcommand(command.name, subparser, help=command.help)
        subparser.prog = program if program != "gdd" else f"gdd {command.name}"
    return parser


def _parse(arguments: Sequence[str], program: str) -> Namespace:
    files = [value for flag, value in itertools.pairwise(arguments) if flag == "--config"]
    files += [argument.partition("=")[2] for argument in arguments if argument.startswith("--config=")]
    try:
        return _parser(program).parse_args(list(arguments))
    except ArgumentError as error:
        if files and re.match("Problems parsing config|Unexpected config|.*unable to load", str(error)):
            reason = re.sub(r"Unexpected config:.*", _NO_SETTINGS, str(error), flags=re.DOTALL)
            reason = reason.replace("Problems parsing config: ", "", 1).replace('in "<unicode string>", ', "in ")
            raise ConfigError(f"--config {', '.join(files)} cannot be used: {reason}") from error
        raise
    except (UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"--config {', '.join(files)} cannot be read ({error})") from error
    except OverflowError as error:  # the parser makes floats of whole numbers
        raise ConfigError(f"a number of the settings is too large ({error})") from error


def parse_config(arguments: Sequence[str]) -> Config:
    """Return the config of a command line such as `["--config", "configs/digits.yaml", "--seed", "1"]`."""
    return read_config(_parse(["distill", *arguments], "gdd")["distill"])


def _sentence(error: Exception) -> str:
    """Fold the parser's message into one line in plain words."""
    text = printable(" ".join(str(error).split()))
    text = re.sub(r"^(Parser key|Problem in key) ", "", text)
    text = re.sub(r"(a )?<class '(?:\w+\.)*(\w+)'>", r"\2", text)
    text = re.sub(r"(a )?typing\.Literal\[(.*?)\]", r"one of \2", text)
    text = text.replace("Expected tuple.", "Expected a list such as [a, b].")
    text = re.sub(
        r"Does not validate against any .* Errors: - (.*) Given value type: \w+ Given value: (.*)", _either, text
    )
    text = re.sub(r'^"([\w.]+)": ', r"\1: ", text)
    # A section on its own takes a file; before it was one, the recipe's name stood here.
    text = re.sub(
        r"^(evaluate\.recipe): Unable to load config ('.*?') .*",
        r"\1 is \2, expected keys with their values, such as \1.name",
        text,
    )
    return text if len(text) <= _MOST_SAID else f"{text[:_MOST_SAID]} ..."


def _either(union: re.Match[str]) -> str:
    """Say what an optional setting takes."""
    kinds = [error.removeprefix("Expected ").replace("NoneType", "null") for error in union[1].split(" - ")]
    return f"{union[2]} is none of what was expected: {' or '.join(kinds)}"


def _limit(error: Exception) -> str | None:
    """Say what the machine or its libraries cannot do; none for our own mistakes."""
    reason = str(error).strip().partition("\n")[0][:200]
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in reason:
        return f"there is not enough memory ({reason}); choose smaller batches, widths or images, or fewer run.workers"
    if "Connection closed" in reason or "Connection reset" in reason:
        return f"another process has ended ({reason}); what stopped it stands above or in its own output"
    if "deterministic implementation" in reason:
        return f"run.deterministic is True, but {reason}"
    return None


def main(arguments: Sequence[str] | None = None, program: str = "gdd") -> int:
    """Run a command line such as `["sample", "runs/digits/refine", "--ipc", "10"]` and return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # not every terminal has ± and −; standard error escapes by itself
        sys.stdout.reconfigure(errors="replace")
    is_first = os.environ.get("RANK", "0") == "0"  # of several processes, one speaks
    logging.basicConfig(level=logging.INFO if is_first else logging.WARNING, format="%(message)s", stream=sys.stderr)
    for transport in ("httpx", "httpx2"):  # of huggingface_hub; each tells of every request
        logging.getLogger(transport).setLevel(logging.WARNING)
    console = Console(
        quiet=not is_first, width=None if sys.stdout.isatty() else _LOG_WIDTH, highlight=False, markup=False
    )
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    try:
        with_launcher()
        options = _parse(words or ["--help"], program)
        chosen = options[options.command]
        speaks = is_first and chosen.get("verbose", False)
        logging.getLogger("gdd").setLevel(logging.DEBUG if speaks else logging.NOTSET)  # the root's
        COMMANDS[options.command].run(chosen, console)
    except SystemExit as end:  # of --help and --print_config
        return int(end.code or 0)
    except Stopped as stop:
        console.print(str(stop), soft_wrap=True)
    except KeyboardInterrupt:
        errors.print(f"{program}: stopped at once")
        return 128 + signal.SIGINT
    except (ConfigError, ArgumentError) as error:
        errors.print(f"{program}: {_sentence(error)}")
        return 2
    except OSError as error:
        reason = error.strerror or type(error).__name__
        errors.print(f"{program}: {error.filename or 'a file'} cannot be used ({reason})")
        return 2
    except (RuntimeError, MemoryError) as error:
        if (limit := _limit(error)) is None:
            raise
        errors.print(f"{program}: {limit}")
        return 2
    return 0


def script(*command: str, program: str = "gdd") -> NoReturn:
    """Entry point of `gdd`, and of the scripts at the project's root, which put their command before what is given.

    One of several processes leaves by os._exit: Gloo's threads outlive the process group, and one that frees a tensor
    while Python shuts down aborts the process (SIGABRT; github.com/pytorch/pytorch/pull/179291).
    """
    code = main([*command, *sys.argv[1:]], program)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)

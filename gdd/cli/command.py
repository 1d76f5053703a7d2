"""What a command is to the parser."""

from collections.abc import Callable
from typing import NamedTuple

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console


class Command(NamedTuple):
    """A subcommand of `gdd`.

    `run` imports torch and friends itself: they take seconds, for which --help need not wait.
    """

    name: str
    help: str  # one line
    add_arguments: Callable[[ArgumentParser], None]  # to the command's own parser
    run: Callable[[Namespace, Console], None]  # does the work; ConfigError tells of a user's mistake

"""What a command is to the parser."""

from collections.abc import Callable
from typing import NamedTuple

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console


class Command(NamedTuple):
    """A subcommand of `gdd`.

    Args:
        name: as it is typed.
        help: one line.
        add_arguments: to the command's own parser.
        run: does the work; ConfigError tells of a user's mistake. It imports torch and friends itself: they take
            seconds, for which --help need not wait.
    """

    name: str
    help: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace, Console], None]

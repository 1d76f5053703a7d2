"""The commands; the only place that prints and exits."""

from gdd.cli.main import main, script

__all__ = ["main", "script"]

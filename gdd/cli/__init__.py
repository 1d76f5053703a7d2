"""The commands; the only place that prints and exits."""

from gdd.cli.main import main as main
from gdd.cli.main import script as script

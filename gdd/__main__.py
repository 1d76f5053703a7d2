"""`python -m gdd` and `accelerate launch -m gdd`: the console command."""

from gdd.cli import script

script()

"""Score synthetic sets with fresh students. See `--help`."""

import sys

from gdd.cli import script

if __name__ == "__main__":
    sys.exit(script("evaluate", "evaluate.py"))

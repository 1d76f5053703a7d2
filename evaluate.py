"""Score synthetic sets with fresh students. See `--help`."""

from gdd.cli import script

if __name__ == "__main__":
    script("evaluate", program="evaluate.py")

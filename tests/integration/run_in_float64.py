"""Run a gdd command in float64, where rounding is too small for some steps of Adam to make it show."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from commands import short_recipes

from gdd.cli import script

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    with short_recipes():
        script()

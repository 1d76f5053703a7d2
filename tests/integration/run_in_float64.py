"""Run a gdd command in float64, where rounding is too small for some steps of Adam to make it show."""

import torch

from gdd.cli import script

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    script()

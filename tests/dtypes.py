"""What operators compute in: a dispatch mode that asks them."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = ("convolution", "mm", "bmm", "addmm", "baddbmm")
NORMS = (
    "native_batch_norm",
    "cudnn_batch_norm",
    "native_group_norm",
    "native_layer_norm",
)  # each returns values and two statistics


class Dtypes(TorchDispatchMode):
    """The dtypes of products' inputs, and of what norms compute by."""

    def __init__(self) -> None:
        super().__init__()
        self.products, self.statistics = list[torch.dtype](), list[torch.dtype]()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        answer = func(*args, **(kwargs or {}))
        name = func.name().removeprefix("aten::").partition(".")[0]
        if name in PRODUCTS:
            self.products += [value.dtype for value in args if isinstance(value, Tensor)]
        elif name == "rsqrt":  # of a variance, in a norm that is written out
            self.statistics.append(args[0].dtype)
        elif name in NORMS:
            self.statistics += [value.dtype for value in answer[1:] if value.numel() and value.is_floating_point()]
        return answer

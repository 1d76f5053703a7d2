"""A CUDA device that is not there: tensors on it have no data, and what is asked of it is counted.

`torch._subclasses.fake_tensor` gives tensors a device and CUDA's dispatch, but no memory. Here those on the CPU stay
real, so that draws and Python's decisions are those of a run. An operation on tensors of two devices, or one that CUDA
does not have, raises as on a card. What a host may ask a card to wait for is answered with zeros, and counted.
"""

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any
from unittest.mock import patch

import engine
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from gdd.runtime import execution

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
_COPIES = (aten._to_copy.default, aten.copy_.default)
_INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
_UNIQUE = (aten._unique2.default, aten.unique_dim.default, aten._unique.default)
# They make no kernel run: a place in memory, or another view of one.
_FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "alias", "lift_fresh"}
CLASSES = 3  # that `unique` finds, and among which a mask of rows chooses one


class Card(TorchDispatchMode):
    """Counts `operations` (kernels, roughly), `copies` between CPU and card, and `reads`, for which the host waits."""

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True, allow_fallback_kernels=False)
        self.counted = Counter[str]()
        self.names = Counter[str]()  # of the operations

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = pytree.tree_leaves((args, kwargs))
        tensors = [one for one in leaves if isinstance(one, Tensor)]
        there = any(isinstance(one, FakeTensor) for one in tensors)
        goes_there = any(isinstance(one, torch.device) and one.type == "cuda" for one in leaves)
        if not (there or goes_there):
            with torch._C._DisableTorchDispatch():
                return func(*args, **kwargs)
        if func in (aten.item.default, aten._local_scalar_dense.default):
            self.counted["reads"] += 1
            return args[0].dtype != torch.bool  # as _read
        if torch.is_inference_mode_enabled() and _is_composite(func):
            with self:  # in inference mode it comes whole
                return func.decompose(*args, **kwargs)
        if func in _COPIES and (answer := self._copied(func, args, kwargs)) is not None:
            return answer
        if func is aten.is_set_to.default:  # which no card is asked about
            one, other = args
            same = one.untyped_storage()._cdata == other.untyped_storage()._cdata
            return same and one.shape == other.shape and one.stride() == other.stride()
        if func is aten.equal.default:
            self.counted["reads"] += 1
            return False
        if func in _UNIQUE:
            self.counted["reads"] += 1
            return torch.arange(CLASSES, device=CUDA).to(args[0].dtype), *(args[0].long() for _ in range(2))
        if func is aten.nonzero.default:
            self.counted["reads"] += 1
            return torch.zeros(_share(args[0]), args[0].ndim, dtype=torch.int64, device=CUDA)
        if func is aten.bincount.default:
            self.counted["reads"] += 1
            return torch.zeros(CLASSES, dtype=torch.int64, device=CUDA)
        if func in _INDEXING:
            args = args[0], [self._index(one) for one in args[1]], *args[2:]
        name = func.overloadpacket.__name__
        if there and not func.is_view and name not in _FREE and func.namespace == "aten":
            self.counted["operations"] += 1
            self.names[name] += 1
        # Three that the fake mode does not know.
        if name.startswith("_fused_"):
            return self._stepped(tensors)
        if name in ("grid_sampler_2d_backward", "cudnn_grid_sampler_backward"):
            return tuple(torch.empty_like(one) for one in tensors if one.ndim == 4)[-3:][:2]
        if name == "cudnn_grid_sampler":
            return args[0].new_empty(*args[0].shape[:2], *args[1].shape[1:3])
        return func(*args, **kwargs)

    def _stepped(self, tensors: Iterable[Tensor]) -> None:
        """Stand in for an optimiser's one kernel, which the fake mode does not know and which takes nothing else."""
        if elsewhere := {one.device.type for one in tensors} - {"cuda"}:
            raise RuntimeError(f"Expected all tensors to be on the same device, but found {elsewhere} beside cuda")

    def _copied(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Count a copy between devices, and return what the CPU gets by one from the card."""
        if func is aten.copy_.default:
            target, source = args[:2]
            came, goes = isinstance(source, FakeTensor), isinstance(target, FakeTensor)
        else:
            target, source = None, args[0]
            came = isinstance(source, FakeTensor)
            goes = came if kwargs.get("device") is None else torch.device(kwargs["device"]).type == "cuda"
        if came == goes:
            return None
        self.counted["copies"] += 1
        if goes:
            return None
        self.counted["reads"] += 1
        answer = _read(source, kwargs.get("dtype"))
        if target is None:
            return answer
        with torch._C._DisableTorchDispatch():
            return target.copy_(answer)

    def _index(self, index: Tensor | None) -> Tensor | None:
        """Return an index of known size, for a mask has to be counted by the host first."""
        if index is None:
            return None
        if index.dtype in (torch.bool, torch.uint8):
            self.counted["reads"] += 1
            return torch.zeros(_share(index), dtype=torch.int64, device=CUDA)
        if not isinstance(index, FakeTensor):
            self.counted["copies"] += 1
            return torch.zeros(index.shape, dtype=torch.int64, device=CUDA)
        return index

    def wait(self, *_: object) -> None:
        """Stand in for torch.cuda.synchronize."""
        self.counted["reads"] += 1


def _is_composite(func: Any) -> bool:
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return func.namespace == "aten" and func.has_kernel_for_dispatch_key(key)


def _share(mask: Tensor) -> int:
    return max(1, mask.numel() // CLASSES)


def _read(values: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return what the host reads instead of values: False, or 1."""
    with torch._C._DisableTorchDispatch():
        return torch.full(values.shape, values.dtype != torch.bool, dtype=dtype or values.dtype)


@contextlib.contextmanager
def card() -> Iterator[Card]:
    """Let tensors of the block be put on "cuda", and backpropagation and autocast take them."""
    one = Card()
    warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor", UserWarning)
    with (
        patch.object(torch.autograd, "_engine_run_backward", engine.run_backward),
        patch.object(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        patch.object(torch.cuda, "is_available", lambda: False),  # not a real one, where there is one
        patch.object(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True),
        patch.object(torch.cuda, "synchronize", one.wait),
        patch.object(torch.cuda, "reset_peak_memory_stats", lambda device: None),
        patch.object(torch.cuda, "max_memory_allocated", lambda device: 0),
        patch.object(torch.cuda, "get_device_name", lambda device: "fake"),
        patch.object(execution, "has_bfloat16", lambda device: device.type == "cuda"),
        patch.object(torch.utils, "swap_tensors", _swap),
        patch.object(FakeTensorMode, "__deepcopy__", lambda self, memo: self, create=True),
        one.fake,
        one,
    ):
        yield one


def _swap(one: Tensor, other: Tensor) -> None:
    """Give a weight the content of another, as `Module.to` wants it; torch refuses fake ones, which are referred to."""
    one.data = other.data

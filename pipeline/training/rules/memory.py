"""How many bytes a computation keeps for its backward pass."""

from __future__ import annotations

from types import TracebackType

import torch
from torch import Tensor


class SavedBytes:
    """A context that counts the bytes that autograd saves: each storage once, and no parameters.

        with SavedBytes() as saved:
            loss = ...
        saved.bytes

    Tensors that exist anyway, such as the image, count too if they are saved; so do the states that checkpoints keep.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._seen: dict[int, Tensor] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda packed: packed)

    def __enter__(self) -> SavedBytes:
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.__exit__(kind, error, trace)
        self._seen.clear()

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        whole = tensor if tensor._base is None else tensor._base
        if not isinstance(whole, torch.nn.Parameter) and storage._cdata not in self._seen:
            self._seen[storage._cdata] = tensor  # kept alive, so that no other storage gets its place
            self.bytes += storage.nbytes()
        return tensor

"""CUDA graphs: hundreds of small kernels that are started as one.

A small network's kernels take less time than the CPU needs to start them one by one.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Calls that run as they are before one is recorded, for what libraries set up at first.
WARM_UP = 3


class Recorded:
    """A step of work on a CUDA device that is recorded once for each shape of its inputs.

    From then on a call copies its inputs to where the recorded ones were and replays.

    Args:
        step: works in place on tensors that outlive it, returns nothing, and never waits for
            the device. What Python decides in it is decided when it is recorded.
    """

    def __init__(self, step: Callable[..., None]) -> None:
        self._step = step
        self._stream = torch.cuda.Stream()
        self._calls: dict[tuple[torch.Size, ...], int] = {}
        self._graphs: dict[tuple[torch.Size, ...], tuple[torch.cuda.CUDAGraph, Any]] = {}

    def __call__(self, *inputs: Tensor) -> None:
        """Does the step."""
        shapes = tuple(one.shape for one in inputs)
        calls = self._calls[shapes] = self._calls.get(shapes, 0) + 1
        if calls <= WARM_UP:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                self._step(*inputs)
            torch.cuda.current_stream().wait_stream(self._stream)
            return
        if shapes not in self._graphs:
            graph, own = torch.cuda.CUDAGraph(), [one.clone() for one in inputs]
            with torch.cuda.graph(graph, stream=self._stream):
                self._step(*own)  # is recorded, and not done
            self._graphs[shapes] = graph, own
        graph, own = self._graphs[shapes]
        for to, one in zip(own, inputs, strict=True):
            to.copy_(one)
        graph.replay()

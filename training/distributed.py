"""Several processes that train one model together: who is who, and what they share.

torchrun starts them, and its environment tells each its rank: 0 is the first. The
first alone touches files and prints; the others have from it all that they need.
Everything here also holds for a single process, which is its own first.
"""

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from training.errors import TrainingError

PATIENCE = 600  # seconds, far more than two processes' starts lie apart

P = ParamSpec("P")
T = TypeVar("T")


def is_first() -> bool:
    """Returns whether this process is the first of all."""
    return _told("RANK", 0) == 0


def processes() -> int:
    """Returns how many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@contextmanager
def group(device: torch.device) -> Iterator[torch.device]:
    """Joins the processes that torchrun started, over NCCL on CUDA and gloo on the CPU.

    Args:
        device: what all of them train on.

    Yields:
        this process's own one of them.

    Raises:
        TrainingError: if there are more processes on this machine than CUDA devices.
    """
    if _told("WORLD_SIZE", 1) == 1:
        yield device
        return
    if device.type == "cuda":
        here, devices = _told("LOCAL_WORLD_SIZE", 1), torch.cuda.device_count()
        if here > devices:
            raise TrainingError(
                f"torchrun started {here} processes on a machine with {devices} CUDA devices: "
                f"each needs its own, so start {devices} (--nproc-per-node={devices})."
            )
        device = torch.device("cuda", _told("LOCAL_RANK", 0))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield device
    # Not where the block has failed: NCCL would wait for processes that are gone.
    distributed.destroy_process_group()


def from_first(make: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Calls `make` in the first process alone, and returns to all what it returns there.

    Raises:
        TrainingError: in all processes, if `make` raises it in the first.
    """
    if processes() == 1:
        return make(*args, **kwargs)
    outcome: list[Any] = [None]
    if is_first():
        try:
            outcome = [make(*args, **kwargs)]
        except TrainingError as error:
            outcome = [error]
    distributed.broadcast_object_list(outcome)
    if isinstance(outcome[0], TrainingError):
        raise outcome[0]
    made: T = outcome[0]
    return made


def data_parallel(model: nn.Module) -> nn.Module:
    """Returns a module that computes what `model` does, and means its gradients over all processes.

    Batch norm goes by the images of its own process. The running statistics that
    count are the first's, since it is the one that evaluates.
    """
    if processes() == 1:
        return model
    return DistributedDataParallel(model, forward_sync_buffers=False, gradient_as_bucket_view=True)


def share(count: int) -> tuple[slice, float]:
    """Returns this process's part of a batch, and what its mean loss weighs in the batch's.

    Means of gradients over all processes are right only for equal parts; the
    weight, 1 where they are, makes up for the rest. A process for which there is no
    image takes one that weighs nothing, since the others would wait for it.

    Args:
        count: how many images the batch has.
    """
    ranks = processes()
    rank = distributed.get_rank() if ranks > 1 else 0
    own = len(range(rank, count, ranks))
    return slice(rank, count, ranks) if own else slice(1), own * ranks / count


@contextmanager
def own_randomness(device: torch.device) -> Iterator[None]:
    """Lets each process draw its own numbers in the block, where all draw the same outside it."""
    if processes() == 1:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        seed = int(torch.randint(2**62, (), device=device))
        torch.manual_seed(seed + distributed.get_rank())
        yield


def total(value: Tensor) -> Tensor:
    """Returns the sum of all processes' values."""
    if processes() > 1:
        distributed.all_reduce(value)
    return value


def command_line(words: Sequence[str]) -> str:
    """Returns these words of a process as a shell would take them, with torchrun where it began."""
    if _told("WORLD_SIZE", 1) == 1:
        return shlex.join(words)
    return f"torchrun … {shlex.join(words[words.index('-m') :])}"


class Commands(click.Group):
    """Commands that speak with one voice, however many processes run them.

    Only the first prints. What is wrong is said once on each machine, as
    not all of them need be wrong.
    """

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command that is called; several processes can do nothing but train."""
        name, command, rest = super().resolve_command(ctx, args)
        if name != "train" and _told("WORLD_SIZE", 1) > 1:
            raise click.UsageError(f"torchrun is for train alone: python -m training {name}")
        return name, command, rest

    def main(self, *args: Any, **settings: Any) -> Any:
        """Runs the command line."""
        if is_first():
            return super().main(*args, **settings)
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            speaks = _told("LOCAL_RANK", 0) == 0
            try:
                return super().main(*args, **settings | {"standalone_mode": speaks})
            except click.ClickException as error:
                time.sleep(PATIENCE)  # until torchrun ends it, once the one that speaks has ended
                sys.exit(error.exit_code)


def _told(name: str, default: int) -> int:
    """Returns what torchrun's environment tells this process."""
    return int(os.environ.get(name, default))

"""What moves the weights: optimizer, schedule, and moving average."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel

from training.config import Recipe


def make_optimizer(parameters: Iterable[nn.Parameter], recipe: Recipe) -> Optimizer:
    """Returns the recipe's optimizer."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    match recipe.optimizer:
        case "adam":
            return Adam(parameters, lr=rate, weight_decay=decay, fused=True)
        case "adamw":
            return AdamW(parameters, lr=rate, weight_decay=decay, fused=True)
        case _:
            return SGD(
                parameters, lr=rate, weight_decay=decay, momentum=0.9, nesterov=True, fused=True
            )


def make_schedule(optimizer: Optimizer, recipe: Recipe, steps_per_epoch: int) -> LRScheduler:
    """Returns the recipe's schedule, which takes one step after each of the optimizer's."""
    if recipe.schedule == "constant":
        return ConstantLR(optimizer, factor=1)
    total = recipe.epochs * steps_per_epoch + 1  # it counts the rate before the first
    return OneCycleLR(
        optimizer,
        max_lr=recipe.learning_rate,
        total_steps=total,
        pct_start=max(recipe.warmup, 2 / total) if recipe.warmup else 0,  # one step up divides by 0
    )


class WarmedAverage(AveragedModel):
    """The exponential moving average of a model's weights and batch norm statistics.

    The decay climbs to its final value as min(decay, (1 + n) / (10 + n)) after
    n updates, so that a short run's average is not held back by its first
    weights; the formula is that of TensorFlow's ExponentialMovingAverage.

    Args:
        model: the model to average, now and at each `update_parameters`.
        decay: how much of the average stays at each update, in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, multi_avg_fn=self._average, use_buffers=True)
        self.decay = decay

    def _average(self, averaged: Any, current: Any, _updates: Any) -> None:
        if not averaged[0].is_floating_point():  # batch norm counts its batches
            torch._foreach_copy_(averaged, current)
            return
        n = float(self.n_averaged)  # which, unlike what is given here, is not on the device
        torch._foreach_lerp_(averaged, current, 1 - min(self.decay, (1 + n) / (10 + n)))

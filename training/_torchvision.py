"""torchvision's MNIST, whichever builds of torch and torchvision are installed.

torchvision registers Python halves for the operators of its compiled library
while it is imported. A torchvision built for CUDA cannot load that library
beside a CPU-only torch, and the import then fails with "operator
torchvision::nms does not exist". Declaring the two operators' schemas lets it
go on; nothing here ever calls them.
"""

import torch

try:
    from torchvision.datasets import MNIST
except RuntimeError:
    _operators = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _operators.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision.datasets import MNIST

__all__ = ["MNIST"]

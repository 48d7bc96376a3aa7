"""Adam for small networks on a CPU, where each tensor and each call costs more than the arithmetic."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim.adam import adam

from .detector import Detector


class FlatAdam:
    """Adam (Kingma & Ba 2015) on one vector that holds every parameter, the detector's own becoming views of it.

    The steps of a small network are mostly overhead for each tensor and of the optimizer's class; one tensor and
    PyTorch's function for it take a quarter off.
    """

    def __init__(self, detector: Detector, lr: float, weight_decay: float) -> None:
        self.own = [p for p in detector.parameters() if p.requires_grad]
        self.flat = torch.cat([p.detach().flatten() for p in self.own])
        for parameter, value in zip(self.own, self.flat.split([p.numel() for p in self.own]), strict=True):
            parameter.data = value.view_as(parameter)
        self.lr, self.weight_decay = lr, weight_decay
        self.first, self.second = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self.steps = torch.zeros((), device=self.flat.device)

    def step(self, loss: Tensor) -> None:
        """Follow the gradient of `loss` once; a parameter that it does not reach stays."""
        gradients = torch.autograd.grad(loss, self.own, allow_unused=True)
        parts = [torch.zeros_like(p) if g is None else g for p, g in zip(self.own, gradients, strict=True)]
        with torch.no_grad():
            adam(
                [self.flat], [torch.cat([part.flatten() for part in parts])], [self.first], [self.second], [],
                [self.steps], fused=self.flat.device.type != "mps", amsgrad=False, beta1=0.9, beta2=0.999, lr=self.lr,
                weight_decay=self.weight_decay, eps=1e-8, maximize=False,
            )  # fmt: skip

    def state(self) -> dict[str, Tensor]:
        return {"first": self.first, "second": self.second, "steps": self.steps}

    def resume(self, state: Mapping[str, Tensor]) -> None:
        for name, value in self.state().items():
            value.copy_(state[name])

    def release(self) -> None:
        """Give the detector parameters of its own again."""
        for parameter in self.own:
            parameter.data = parameter.data.clone()

"""Adam for small networks on a CPU, where each tensor and each call costs more than the arithmetic."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim.adam import adam

from ..core.detector import Detector


class FlatAdam:
    """Adam (Kingma & Ba 2015) on one vector that holds every parameter, the detector's own becoming views of it.

    The steps of a small network are mostly overhead for each tensor and of the optimizer's class; one tensor and
    PyTorch's function for it take a quarter off. Gradients are summed into one vector of the same form, for the same
    reason.
    """

    def __init__(self, detector: Detector, lr: float, weight_decay: float) -> None:
        self.own = [p for p in detector.parameters() if p.requires_grad]
        self.flat = torch.cat([p.detach().flatten() for p in self.own])
        self.gradient = torch.zeros_like(self.flat)
        sizes = [p.numel() for p in self.own]
        parts = zip(self.own, self.flat.split(sizes), self.gradient.split(sizes), strict=True)
        for parameter, value, gradient in parts:
            parameter.data = value.view_as(parameter)
            parameter.grad = gradient.view_as(parameter)
        self.lr, self.weight_decay = lr, weight_decay
        self.first, self.second = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self.steps = torch.zeros((), device=self.flat.device)

    def step(self, loss: Tensor) -> None:
        """Follow the gradient of `loss` once; a parameter that it does not reach stays."""
        self.gradient.zero_()
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            adam(
                [self.flat], [self.gradient], [self.first], [self.second], [], [self.steps],
                fused=self.flat.device.type != "mps", amsgrad=False, beta1=0.9, beta2=0.999, lr=self.lr,
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
            parameter.data, parameter.grad = parameter.data.clone(), None

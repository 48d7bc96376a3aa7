"""Optimizers on one vector of all parameters: for small networks each tensor and each call costs more than the
arithmetic, and a hook changes or reduces one gradient instead of many."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim.adam import adam

from ..core.detector import Detector


class Flat:
    """One vector that holds every trainable parameter, the detector's own becoming views of it, and one of gradients.

    A subclass takes a step in `follow`, and names in `state` the tensors that an interrupted training needs again.

        >>> class Descent(Flat):
        ...     def follow(self):
        ...         self.values -= self.lr * self.gradient

    Attributes:
        values, gradient: [parameters], in the detector's order.
        lr: learning rate of the next step; a hook may change it.
    """

    def __init__(self, detector: Detector, lr: float, weight_decay: float) -> None:
        self.parameters = [p for p in detector.parameters() if p.requires_grad]
        self.values = torch.cat([p.detach().flatten() for p in self.parameters])
        self.gradient = torch.zeros_like(self.values)
        sizes = [p.numel() for p in self.parameters]
        parts = zip(self.parameters, self.values.split(sizes), self.gradient.split(sizes), strict=True)
        for parameter, value, gradient in parts:
            parameter.data = value.view_as(parameter)
            parameter.grad = gradient.view_as(parameter)
        self.lr, self.weight_decay = lr, weight_decay

    def backward(self, loss: Tensor) -> None:
        """Put the gradient of `loss` into `gradient`; 0 for a parameter that the loss does not reach."""
        self.gradient.zero_()
        loss.backward()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def step(self) -> None:
        """Follow the gradient once."""
        self.follow()

    def follow(self) -> None:
        """Change `values` by `gradient`, in place; called without autograd."""
        raise NotImplementedError

    def state(self) -> dict[str, Tensor]:
        """The tensors, besides the parameters, that the next step depends on."""
        return {}

    def resume(self, state: Mapping[str, Tensor]) -> None:
        """Go on with the `state` of an interrupted training."""
        for name, value in self.state().items():
            value.copy_(state[name])

    def release(self) -> None:
        """Give the detector parameters of its own again."""
        for parameter in self.parameters:
            parameter.data, parameter.grad = parameter.data.clone(), None


class FlatAdam(Flat):
    """Adam (Kingma & Ba 2015). One tensor and PyTorch's function for it take a quarter off a small network's step."""

    def __init__(self, detector: Detector, lr: float, weight_decay: float) -> None:
        super().__init__(detector, lr, weight_decay)
        self.first, self.second = torch.zeros_like(self.values), torch.zeros_like(self.values)
        self.steps = torch.zeros((), device=self.values.device)

    def follow(self) -> None:
        adam(
            [self.values], [self.gradient], [self.first], [self.second], [], [self.steps],
            fused=self.values.device.type != "mps", amsgrad=False, beta1=0.9, beta2=0.999, lr=self.lr,
            weight_decay=self.weight_decay, eps=1e-8, maximize=False,
        )  # fmt: skip

    def state(self) -> dict[str, Tensor]:
        return {"first": self.first, "second": self.second, "steps": self.steps}

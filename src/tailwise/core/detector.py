"""The seam between detectors and everything else.

A detector gives one loss and one score per sample and never reduces them; it does not know that weights exist, except
that `prepare` and `solve` take them to form means. Layer 2 knows detectors only by the protocols here. The contracts
that every detector keeps are in `testing.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..errors import InputError
from .bounds import checked_constructor
from .context import Context, Graph
from .data import Batch, Data
from .modality import FEATURE_MAP, IMAGE, ROW, SPECTRUM, Modality, infer
from .problem import Labelled


@runtime_checkable
class Trainable(Protocol):
    """Learns by gradient steps on its losses."""

    def losses(self, batch: Batch) -> Tensor:
        """[sample], unreduced."""
        ...


@runtime_checkable
class ClosedForm(Protocol):
    """Learns in one step from weighted data: covariances, memories, forests."""

    def solve(self, data: Data, w: Tensor) -> Tensor | None:
        """Fit to the samples of `data` with the weights `w` [n], of any scale.

        Their scores [n] as `score_left_out` gives them, on the CPU, where finding these was a part of it; or None.
        """
        ...


@runtime_checkable
class Supervised(Protocol):
    """Also learns from a few labelled anomalies; such a detector has `needs_labels`."""

    def know(self, anomalies: Labelled) -> None:
        """Keep the anomalies; called once, after `start` and before `prepare`."""
        ...


@runtime_checkable
class Divisible(Protocol):
    """Leaves the learning to a detector of its samples' parts, such as an image's patches: its `detector`.

    Not a member here: from Python 3.12 on, isinstance does not see the networks that a network holds.
    """

    def divide(self, data: Data, generator: torch.Generator) -> tuple[Data, Tensor]:
        """Parts as samples of their own, and which sample of `data` each is a part of [m]."""
        ...


@runtime_checkable
class Contrasting(Protocol):
    """Has anomalies, known or made, by which a fit is checked: the loss of a sample alone says little of its score."""

    def contrast(self, batch: Batch) -> Tensor:
        """[m, *sample]: anomalies beside the samples; once trained they score higher."""
        ...


@runtime_checkable
class Settling(Protocol):
    """Measures something by its trained parameters, such as a limit, that its scores need."""

    def settle(self, data: Data, w: Tensor) -> None:
        """Measure it on training samples with the weights [n] known beforehand; called before scores are asked for."""
        ...


@runtime_checkable
class SelfChecked(Protocol):
    """Whose loss says little of its score, so that it answers for itself what its steps have taught."""

    def self_checks(self, batch: Batch) -> list[tuple[str, bool, float, str]]:
        """A name, whether the answer is good, the figure behind it and a sentence."""
        ...


@runtime_checkable
class Mapping2d(Protocol):
    """Says where in the sample the anomaly is."""

    def score_map(self, batch: Batch) -> Tensor:
        """[sample, *space], higher is more anomalous."""
        ...


@runtime_checkable
class Peaked(Protocol):
    """Knows how far a map reaches in a sample of a score, so that a map can be held to what the score says."""

    def peak_at(self, score: Tensor) -> Tensor:
        """[sample]: what the farthest places of samples of these scores [sample] are worth on the map's scale."""
        ...


@runtime_checkable
class Updatable(Protocol):
    """Takes in more normals without being fitted again. No score rises by it."""

    def update(self, data: Data, w: Tensor) -> None:
        """Add the samples of `data` with the weights `w` [n]."""
        ...


@runtime_checkable
class Prototypical(Protocol):
    """Holds parts of a sample against normal parts that it keeps, so that the two can be aligned."""

    def prototypes(self) -> Tensor:
        """[m, d]: the normal parts."""
        ...

    def parts(self, samples: Tensor) -> Tensor:
        """[b, p, d]: parts of samples [b, *sample] where the prototypes are; gradients pass through."""
        ...


@runtime_checkable
class PassesMessages(Protocol):
    """Classifies nodes by a network that passes messages along the edges of their graph."""

    def attributes(self, nodes: Tensor) -> Tensor:
        """[N, d]: attributes of nodes as the network reads them."""
        ...

    def placed(self, attributes: Tensor, graph: Graph) -> Tensor:
        """[N, h]: where the network places nodes with such attributes."""
        ...

    def placed_alone(self, attributes: Tensor) -> Tensor:
        """[N, h]: the same with no message passed."""
        ...

    def logit(self, hidden: Tensor) -> Tensor:
        """[N]: of being an anomaly."""
        ...

    def told_apart(self) -> tuple[float, float]:
        """The AUROC of labelled anomalies among the nodes that it was trained on: with messages, and without; NaN where
        that is not known."""
        ...


@runtime_checkable
class Concluding(Protocol):
    """Keeps something of its training samples that only the finished detector can tell."""

    def conclude(self, data: Data) -> None:
        """Called once training is over, with the samples that were trained on."""
        ...


@runtime_checkable
class MeanOfCues(Protocol):
    """Its score is the mean of named cues."""

    def named_cues(self, batch: Batch) -> dict[str, Tensor]:
        """The cues [sample] by name."""
        ...


@runtime_checkable
class OwnScale(Protocol):
    """Counts scores in deviations of its own training samples, and can count in those of another."""

    def count_as(self, other: Any, wholly: bool = False) -> None:
        """Give scores on the scale of `other`, a detector of the same class, from now on; `wholly` where its own
        scale is that of copies."""
        ...


@dataclass(frozen=True, eq=False)
class Reading:
    """What one pass over a batch gives: [sample] scores, [sample, *space] maps and [sample, d] places in an embedding.

    What was not asked for is empty.
    """

    score: Tensor = torch.empty(0)  # noqa: RUF009 (never written to)
    map: Tensor = torch.empty(0)  # noqa: RUF009
    embedding: Tensor = torch.empty(0)  # noqa: RUF009


class Detector(nn.Module):
    """What detectors share: settings that print, the sample's shape, and a state of plain tensors.

    A subclass stores its constructor's parameters under their own names (their annotations say what they may be, see
    `bounds`), lists the `modalities` that it can take, makes its networks and buffers in `build`, and then is
    Trainable, ClosedForm or Divisible.
    `couples_samples` says why, in a detector whose loss for one sample depends on the others in its batch;
    `needs_labels` makes it Supervised: it cannot be trained without a few labelled anomalies.
    `wants_maps` says that images are to be read as feature maps unless the user says otherwise;
    `full_batch` takes all samples in each step, whatever `batch_size` says;
    `solve_once` spares a detector whose solution hardly follows the weights further solutions after the first;
    `loss_is_score` spares a pass over the data in a detector that scores a sample by its loss;
    `weighed_by_loss` has weights made from the losses of evaluation mode, where a score costs many times as much;
    `average_decay`, above 0, and `cosine_schedule` have the loop average its parameters and lower its learning rate,
    unless hooks are given;
    `not_exported` says why no exported file can compute its scores;
    `needs_context` names what the batches of a detector that looks beyond the sample must carry: `Scenes` or `Graph`;
    `ignores_weights` says why weights have no say in a detector that learns nothing from training samples;
    `weights_add_to` names the scores, "own" or "local", and the samples where the default weighting is known to help;
    `local_weight`, above 0, has scores of maps be local by default, and says for how many distances its own counts;
    `left_out_is_new` says that `score_left_out` is what a sample gets that was not trained on;
    `maps_are_gradients` says that its maps cannot be computed by a graph of operations alone;
    `planned_steps` is set by the training loop before `prepare`: how many steps it will take at most, or 0;
    `usual_steps` names how many steps it usually takes, and of how many samples, where the user does not;
    `usual_lr` names the learning rate that it usually takes, likewise;
    `knows_anomalies` is set once it was given labelled ones; a detector from a file knows none;
    `sample_shape` and `modality` are set by `start`, before `build`.

    Examples:
        A closed-form detector needs a place for what it learns, `solve` and `score`:

        >>> class FarFromMean(Detector):
        ...     'Distance to the weighted mean.'
        ...
        ...     modalities = (ROW,)
        ...
        ...     def build(self, sample_shape):
        ...         self.register_buffer("mean", torch.zeros(sample_shape))
        ...
        ...     def solve(self, data, w):
        ...         self.mean = (w[:, None] * data.read(torch.arange(len(data)))).sum(0) / w.sum()
        ...
        ...     def score(self, batch):
        ...         return (batch.samples - self.mean).norm(dim=1)
        >>> detector = FarFromMean()
        >>> data = Data(torch.tensor([[0.0], [2.0], [4.0]]), ["a", "b", "c"])
        >>> detector.start(data.sample_shape)
        >>> detector.solve(data, torch.ones(3))
        >>> detector.score(data.batch(torch.arange(3)))
        tensor([2., 0., 2.])
    """

    modalities: tuple[Modality, ...] = (ROW, SPECTRUM, IMAGE, FEATURE_MAP)
    needs_labels: bool = False
    couples_samples: str = ""
    wants_maps: bool = False
    full_batch: bool = False
    solve_once: bool = False
    loss_is_score: bool = False
    weighed_by_loss: bool = False
    average_decay: float = 0.0
    cosine_schedule: bool = False
    not_exported: str = ""
    needs_context: type[Context] | None = None
    ignores_weights: str = ""
    weights_add_to: tuple[tuple[str, Modality], ...] = ()
    local_weight: int = 0
    left_out_is_new: bool = False
    maps_are_gradients: bool = False
    planned_steps: int = 0
    knows_anomalies: bool = False
    usual_steps: tuple[int, int] | None = None
    usual_lr: float | None = None
    sample_shape: tuple[int, ...] = ()
    modality: Modality = ROW

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__init__" in vars(cls):
            cls.__init__ = checked_constructor(cls.__init__)  # type: ignore[method-assign]

    @property
    def has_maps(self) -> bool:
        """Whether `score_map` says where in an image the anomaly is: samples are images, and there is a map of them."""
        return self.modality.spatial and isinstance(self, Mapping2d)

    @property
    def looks_around(self) -> bool:
        """Whether the detector, or one that it wraps, needs what surrounds a sample."""
        return any(isinstance(part, Detector) and part.needs_context is not None for part in self.modules())

    @classmethod
    def for_contracts(cls) -> Detector:
        """One that is quick to fit, for tests that fit it dozens of times; by default that of the usual settings."""
        return cls()

    @property
    def trained(self) -> Detector:
        """What was trained and gave the outcome of training: the detector itself, or the one within it."""
        return self

    def build(self, sample_shape: tuple[int, ...]) -> None:
        """Make networks and buffers for samples of this shape."""

    def prepare(self, data: Data, w: Tensor) -> None:
        """Statistics that come before training (standardisation, a centre), with the weights [n] known by then."""

    def remember(self, data: Data, w: Tensor) -> None:
        """Training samples that steps look at beside their batch; no file holds them, so each training begins so."""

    def score(self, batch: Batch) -> Tensor:
        """[sample], higher is more anomalous."""
        raise NotImplementedError(f"{type(self).__name__} has no score")

    def score_left_out(self, batch: Batch) -> Tensor:
        """[sample] of training samples, each as if it had not been learnt from; `score` unless a detector can tell."""
        return self.score(batch)

    def embed(self, batch: Batch) -> Tensor:
        """[sample, d]: where the detector places a sample; the sample itself unless it learns better."""
        return batch.samples.flatten(1)

    def read(self, batch: Batch, score: bool = True, map: bool = False, embedding: bool = False) -> Reading:
        """What is asked for, in one pass: a detector that can share work between them says how here.

        To the last bit this is what `score`, `score_map` and `embed` give.

        Raises:
            InputError: a map is asked for, and the detector has none.
        """
        read: dict[str, Tensor] = {}
        if score:
            read["score"] = self.score(batch)
        if map:
            if not isinstance(self, Mapping2d):
                raise InputError(f"{type(self).__name__} has no score maps")
            read["map"] = self.score_map(batch)
        if embedding:
            read["embedding"] = self.embed(batch)
        return Reading(**read)

    def start(self, sample_shape: tuple[int, ...], modality: Modality | None = None) -> None:
        """Check what the samples are and build; without a modality it is inferred from the shape.

        Raises:
            InputError: this detector cannot take such samples.
        """
        modality = infer(sample_shape) if modality is None else modality
        if modality not in self.modalities or not modality.fits(sample_shape):
            takes = ", ".join(f"{each.plural} {each.form}" for each in self.modalities)
            raise InputError(
                f"{type(self).__name__} takes {takes}: got {modality.plural} of shape {list(sample_shape)}",
                "read pictures as pixels: --read pixels" if IMAGE in self.modalities else "",
            )
        self.sample_shape, self.modality = tuple(sample_shape), modality
        self.build(self.sample_shape)

    def restore(
        self, sample_shape: tuple[int, ...], state: Mapping[str, Tensor], modality: Modality | None = None
    ) -> None:
        """Take over a saved state; closed-form results may have any size, so buffers are replaced, not copied into.

        A detector within this one restores its own part.

        Raises:
            InputError: the state is not one of this detector.
        """
        self.start(sample_shape, modality)
        own, state = self.state_dict(), dict(state)
        for name, child in self.named_children():
            if isinstance(child, Detector):
                inner = {key: value for key, value in state.items() if key.startswith(f"{name}.")}
                child.restore(
                    child.sample_shape, {key[len(name) + 1 :]: value for key, value in inner.items()}, child.modality
                )
                state = {key: value for key, value in state.items() if key not in inner}
                own = {key: value for key, value in own.items() if not key.startswith(f"{name}.")}
        if set(own) != set(state):
            odd = sorted(set(own) ^ set(state))
            raise InputError(f"the saved state does not fit {self!r}: {', '.join(odd[:4])}", "fit again")
        buffers = dict(self.named_buffers())
        for name, value in state.items():
            if name in buffers:
                owner, _, leaf = name.rpartition(".")
                setattr(self.get_submodule(owner), leaf, value.to(own[name].device, own[name].dtype))
            elif own[name].shape != value.shape:
                raise InputError(
                    f"the saved {name} has shape {list(value.shape)}: {list(own[name].shape)} was needed", "fit again"
                )
            else:
                own[name].copy_(value)

    def settings(self) -> dict[str, Any]:
        """The constructor's parameters and their values."""
        return {name: getattr(self, name) for name in _parameters(type(self))}

    def __repr__(self) -> str:
        defaults = _parameters(type(self))
        shown = [f"{k}={v!r}" for k, v in self.settings().items() if v != defaults[k].default]
        return f"{type(self).__name__}({', '.join(shown)})"


class ReadsOnce(Detector):
    """A detector that says in `read` what one pass gives; its score, map and embedding are parts of that."""

    def score(self, batch: Batch) -> Tensor:
        return self.read(batch).score

    def score_map(self, batch: Batch) -> Tensor:
        return self.read(batch, score=False, map=True).map

    def embed(self, batch: Batch) -> Tensor:
        return self.read(batch, score=False, embedding=True).embedding


class Around(Detector):
    """A detector around another, which it asks: itself a detector, so it scores, moves and is saved as one."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        self.modalities = detector.modalities

    @property
    def trained(self) -> Detector:
        return self.detector.trained

    @property
    def has_maps(self) -> bool:
        return self.detector.has_maps

    def build(self, sample_shape: tuple[int, ...]) -> None:
        self.detector.start(sample_shape, self.modality)

    def embed(self, batch: Batch) -> Tensor:
        return self.detector.embed(batch)

    def score_map(self, batch: Batch) -> Tensor:
        """The map of the detector within."""
        return self.read(batch, score=False, map=True).map


def _parameters(member: type) -> dict[str, inspect.Parameter]:
    """The named parameters of the constructor; a detector without one of its own has none."""
    parameters = inspect.signature(member).parameters
    return {name: p for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}

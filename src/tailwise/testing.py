"""The contracts that every detector keeps, for this library's detectors and for anyone's own.

    from tailwise.testing import CONTRACTS, Case
    for contract in CONTRACTS.values():
        contract(Case(MyDetector, (12,)))

Each contract takes a `Case` and raises an AssertionError that says what was broken. A file in detectors/ is tested
by its existence.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from .core import inference
from .core.context import Graph, Scenes
from .core.data import Batch, Data
from .core.detector import ClosedForm, Detector, Mapping2d, Reading, Trainable
from .core.modality import FEATURE_MAP, IMAGE, ROW, SPECTRUM, Modality, infer
from .core.problem import Labelled
from .errors import InputError
from .runs.files import tensor_bytes
from .training import fit as training_fit
from .training.local_scores import AUTO, wrapped
from .training.options import Training
from .weights.densities import Gaussian
from .weights.steps import Importance
from .weights.weighting import Context, Weighting, weighted_mean

_SAMPLES = 48
_KINDS = 3
# More than any case has, in parts too.
_EVERYTHING = 1_000_000
# A sample of each modality.
_SHAPES = {ROW: (12,), SPECTRUM: (1, 20), IMAGE: (3, 12, 10), FEATURE_MAP: (20, 12, 10)}
# The smallest scene that a window around a pixel fits into.
_PIXELS = 81


@dataclass(frozen=True)
class Case:
    """A detector, and the shape and the modality of the samples that it is tried on; None takes it from the shape."""

    make: Callable[[], Detector]
    sample_shape: tuple[int, ...] = (12,)
    modality: Modality | None = None

    def data(self, samples: int = _SAMPLES, seed: int = 0) -> Data:
        """Normals of three kinds, one of them rare; the pixels of a scene, for a detector that needs one."""
        if self.make().needs_context is Scenes:
            samples = math.ceil(math.sqrt(max(samples, _PIXELS))) ** 2
        generator = torch.Generator().manual_seed(1)
        centres = torch.randn(_KINDS, *self.sample_shape, generator=generator)
        generator.manual_seed(seed + 2)
        kind = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), samples, replacement=True, generator=generator)
        return self.around(centres[kind] + 0.3 * torch.randn(samples, *self.sample_shape, generator=generator))

    def around(self, values: Tensor) -> Data:
        """Samples [n, *sample] as data, in the surroundings that the detector needs."""
        side = math.isqrt(len(values))
        needs = self.make().needs_context
        context: Graph | Scenes | None = None
        if needs is Scenes:
            context = Scenes(values, ((side, side),))
        elif needs is Graph:
            context = Graph(values, _ring(len(values)))
        modality = infer(self.sample_shape) if self.modality is None else self.modality
        return Data(values, [str(i) for i in range(len(values))], context=context, modality=modality)

    def anomalies(self, detector: Detector) -> Labelled | None:
        """A few samples far from every kind, for a detector that needs them."""
        if not detector.needs_labels:
            return None
        far_out = self.data(4, seed=11).read(torch.arange(4)) * 5 + 20
        return Labelled(self.around(far_out))

    def fit(self, data: Data, w: Tensor | None = None, *, epochs: int = 3) -> Detector:
        """A detector trained on `data` in batches of everything, so that only the weights decide."""
        detector = self.make()
        known = self.anomalies(detector)
        training = Training(epochs=epochs, batch_size=_EVERYTHING)
        training_fit.fit(detector, data, training=training, base_weights=w, anomalies=known)
        return detector.eval()

    def scores(self, data: Data, w: Tensor | None = None) -> Tensor:
        """Scores of fresh samples by a detector trained on `data`."""
        return inference.score(self.fit(data, w), self.data(20, seed=7))


def _ring(nodes: int) -> Tensor:
    """[2, 4 * nodes]: edges both ways between each node and the first and third after it."""
    node = torch.arange(nodes)
    pairs = [torch.stack([node, (node + step) % nodes]) for step in (1, 3)]
    return torch.cat([*pairs, *(pair.flip(0) for pair in pairs)], 1)


def one_number_per_sample(case: Case) -> None:
    """Losses and scores are [sample], finite and unreduced; those of one sample do not depend on the others."""
    data = case.data()
    detector = case.fit(data)
    functions = [detector.score, *([detector.losses] if isinstance(detector, Trainable) else [])]
    whole = next(data.batches(len(data)))
    for function in functions:
        together = function(whole).detach()
        assert together.shape == (len(data),), (
            f"{function.__name__} gave {tuple(together.shape)} for {len(data)} samples"
        )
        assert bool(torch.isfinite(together).all()), f"{function.__name__} gave numbers that are not finite"
        if not detector.couples_samples:
            alone = torch.cat([function(batch).detach() for batch in data.batches(1)])
            _close(together, alone, f"{function.__name__} of a sample depends on the other samples in its batch")


def weight_is_copies(case: Case) -> None:
    """A weight of k is the same as k copies."""
    data = case.data()
    w = torch.arange(len(data)).remainder(3).add(1)
    copies = data.take(torch.arange(len(data)).repeat_interleave(w))
    _close(case.scores(data, w.float()), case.scores(copies), "weight k differs from k copies")


def zero_weight_is_absence(case: Case) -> None:
    """A weight of zero is the same as leaving the sample out; a node that is left out stays in the graph, as the
    neighbour of others."""
    data = case.data()
    kept = torch.arange(len(data)).remainder(4) > 0
    expected = case.scores(data.take(kept.nonzero().flatten()))
    _close(case.scores(data, kept.float()), expected, "weight 0 differs from absence")


def scale_of_weights_cancels(case: Case) -> None:
    """Weights 1000 times as large change nothing."""
    data = case.data()
    w = torch.rand(len(data), generator=torch.Generator().manual_seed(3)) + 0.5
    _close(case.scores(data, w), case.scores(data, 1_000 * w), "the scale of the weights does not cancel")
    scores = []
    for scale in (1, 1_000):  # fit normalises weights, so what the detector itself does with them is asked too
        detector = case.make()
        detector.start(data.sample_shape, data.modality)
        if isinstance(detector, ClosedForm):
            detector.solve(data, scale * w)
            scores.append(inference.score(detector, data))
    if scores:
        _close(scores[0], scores[1], "the scale of the weights does not cancel in solve")


def solve_says_what_left_out_samples_score(case: Case) -> None:
    """Scores that `solve` gives of the samples that it learnt are those of `score_left_out`."""
    data = case.data()
    detector = case.make()
    if not isinstance(detector, ClosedForm):
        return
    detector.start(data.sample_shape, data.modality)
    told = detector.solve(data, torch.rand(len(data), generator=torch.Generator().manual_seed(3)) + 0.5)
    if told is not None:
        expected = inference.over_batches(detector, data, detector.score_left_out)
        _close(told, expected, "solve gives other scores than score_left_out", 1e-5)


def gradients_are_weighted(case: Case) -> None:
    """The gradient of the weighted mean of the losses is that of copies (Trainable only)."""
    data = case.data()
    detector = case.fit(data, epochs=1)
    if not isinstance(detector, Trainable) or detector.couples_samples:
        return
    w = torch.arange(len(data)).remainder(3)
    copies = data.take(torch.arange(len(data)).repeat_interleave(w))
    gradients = []
    for samples, weights in ((data, w.float()), (copies, None)):
        detector.zero_grad()
        losses = detector.losses(next(samples.batches(len(samples))))
        assert losses.shape == (len(samples),), f"losses gave {tuple(losses.shape)} for {len(samples)} samples"
        weighted_mean(losses, weights).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in detector.parameters() if p.grad is not None]))
    _close(gradients[0], gradients[1], "the gradient of weighted losses differs from that of copies")


def same_seed_same_scores(case: Case) -> None:
    """Two fits with one seed score alike to the last bit; global state is left as it was."""
    data = case.data()
    state, threads, grad = torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled()
    first, second = case.scores(data), case.scores(data)
    assert torch.equal(first, second), "the same seed gave other scores"
    assert torch.equal(state, torch.get_rng_state()), "fit changed the global random state"
    assert (threads, grad) == (torch.get_num_threads(), torch.is_grad_enabled()), "fit changed threads or grad mode"


def batch_size_does_not_matter(case: Case) -> None:
    """Scores are the same in batches of 1, 7 and all."""
    data = case.data()
    detector = case.fit(data)
    whole = inference.score(detector, data, len(data))
    for size in (1, 7):
        _close(whole, inference.score(detector, data, size), f"scores depend on the batch size {size}")


def saved_and_loaded_is_equal(case: Case) -> None:
    """State through safetensors and settings through their spelling give the same scores to the last bit."""
    data = case.data()
    detector = case.fit(data)
    again = case.make()
    again.restore(data.sample_shape, safetensors.torch.load(tensor_bytes(detector.state_dict(), {})), data.modality)
    assert repr(again) == repr(detector), f"settings changed: {detector!r} became {again!r}"
    equal = torch.equal(inference.score(detector, data), inference.score(again.eval(), data))
    assert equal, "a loaded detector scores differently"


class CutOff(Exception):
    """A training was cut off by `KeptInMemory`."""

    def __init__(self) -> None:
        super().__init__("the training was cut off")


class KeptInMemory:
    """Keeps an unfinished fit in memory, and cuts it off after so many epochs; a `training.loop.Keeper`.

        >>> from tailwise.detectors.autoencoder import AutoEncoder
        >>> keeper, data = KeptInMemory(after=1), Case(AutoEncoder).data()
        >>> for _ in range(2):
        ...     with contextlib.suppress(CutOff):
        ...         outcome = training_fit.fit(AutoEncoder(), data, training=Training(epochs=2), keeper=keeper)
        >>> len(outcome.history)
        2

    Raises:
        CutOff: that epoch has ended, and was kept.
    """

    def __init__(self, after: int) -> None:
        self.after = after
        self.state: tuple[dict[str, Tensor], dict[str, Any]] | None = None

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        return self.state

    def save(self, tensors: Mapping[str, Tensor], facts: dict[str, Any]) -> None:
        if len(facts["history"]) == self.after:
            copied = {name: value.clone() for name, value in tensors.items()}
            self.state = (copied, {name: list(value) for name, value in facts.items()})
            raise CutOff


def a_training_that_was_cut_off_goes_on(case: Case) -> None:
    """Cut off after one of three epochs and begun again, a training ends as one that was not, to the last bit."""
    data, kept = case.data(), KeptInMemory(after=1)
    if not any(isinstance(part, Trainable) and not isinstance(part, ClosedForm) for part in case.make().modules()):
        return

    def scores(keeper: KeptInMemory | None) -> Tensor:
        detector = case.make()
        known, training = case.anomalies(detector), Training(epochs=3, batch_size=20)
        training_fit.fit(detector, data, training=training, anomalies=known, keeper=keeper)
        return inference.score(detector, data)

    expected = scores(None)
    with contextlib.suppress(CutOff):
        scores(kept)
    assert kept.state is not None, "nothing was kept of a training of several epochs"
    assert torch.equal(scores(kept), expected), "a training that was cut off ends with other scores"


def higher_is_more_anomalous(case: Case) -> None:
    """Samples far from every kind score above the normals."""
    data = case.data()
    detector = case.fit(data, epochs=30)
    # In a scene, far-off pixels beside each other would be each other's background.
    places = torch.tensor([len(data) // 2]) if detector.needs_context else torch.arange(10)
    samples = data.read(torch.arange(len(data)))
    samples[places] = samples[places] * 5 + 20
    normal, anomalous = inference.score(detector, data), inference.score(detector, case.around(samples))[places]
    assert float(anomalous.min()) > float(normal.median()), "far-off samples do not score above normals"


def learns(case: Case) -> None:
    """Every self-check of a fit passes, after 40 steps or a fifth of those that the detector usually takes."""
    data = case.data()
    detector = case.make()
    known = case.anomalies(detector)
    usual, _ = detector.usual_steps or (0, 0)
    training = Training(epochs=max(40, usual // 5), batch_size=_EVERYTHING, lr=5e-3)
    outcome = training_fit.fit(detector, data, training=training, anomalies=known)
    failed = [f"{check.name}: {check.message}" for check in outcome.checks if not check.ok]
    assert not failed, "; ".join(failed)


def weighted_scores_follow_target(case: Case) -> None:
    """On the detector's own scores, weights bring the mean of the log scores close to the target's."""
    data = case.data(400)
    scores = inference.score(case.fit(data, epochs=10), data)
    target = Gaussian(shift=1.0)  # a target that a few hundred scores reach
    step = Importance(target=target, alpha=0.0)
    w = Weighting(step)(Context(scores, scores))
    logs, _ = step.scale(scores, scores)
    before = float(logs.mean())
    wanted = before + target.shift * float(logs.std())
    after = float(weighted_mean(logs, w))
    assert abs(after - wanted) < 0.5 * abs(wanted - before), f"weighted mean {after:.3g}, target {wanted:.3g}"


def refuses_other_shapes(case: Case) -> None:
    """What the detector does not take is refused by the detector's name: other modalities, and shapes of none."""
    detector = case.make()
    others = [(shape, modality) for modality, shape in _SHAPES.items() if modality not in detector.modalities]
    for shape, modality in [*others, ((2, 2, 2, 2), detector.modalities[0])]:
        refusal = ""
        try:
            detector.start(shape, modality)
        except InputError as error:
            refusal = str(error)
        assert refusal, f"{modality.plural} of shape {shape} were not refused"
        assert type(detector).__name__ in refusal, f"the refusal does not name the detector: {refusal}"


def one_pass_gives_what_each_does(case: Case) -> None:
    """`read` gives, to the last bit and in any combination, what `score`, `score_map` and `embed` give alone."""
    data = case.data()
    detector = case.fit(data)
    batch: Batch = next(data.batches(7))
    with_map = (False, True) if detector.has_maps else (False,)
    with torch.no_grad():
        alone = Reading(
            detector.score(batch),
            detector.score_map(batch) if detector.has_maps else torch.empty(0),  # type: ignore[operator]
            detector.embed(batch),
        )
        for asked in itertools.product((False, True), with_map, (False, True)):
            read = detector.read(batch, *asked)
            for wanted, (name, value) in zip(asked, vars(read).items(), strict=True):
                if wanted:
                    assert torch.equal(value, getattr(alone, name)), f"read gives another {name} than alone"
                else:
                    assert not value.numel(), f"read gives a {name} that was not asked for"


def a_wrapped_detector_is_restored(case: Case) -> None:
    """A detector inside another comes back with it: here with local scores around it."""
    detector = case.make()
    if detector.needs_context:
        return
    data = case.data()
    scored = AUTO.fit(case.fit(data), data).eval()
    again = wrapped(detector, "auto")
    again.restore(data.sample_shape, safetensors.torch.load(tensor_bytes(scored.state_dict(), {})), data.modality)
    fresh = case.data(20, seed=7)
    for found, expected in ((again.eval(), scored), (again.trained, scored.trained)):
        assert found.modality == data.modality, f"{type(found).__name__} came back for {found.modality.plural}"
        equal = torch.equal(inference.score(found, fresh), inference.score(expected, fresh))
        assert equal, f"{type(found).__name__} scores differently after it was restored inside another"


def maps_fit_their_samples(case: Case) -> None:
    """A score map of an image has the image's height and width."""
    data = case.data()
    detector = case.fit(data)
    if not detector.modality.spatial or not isinstance(detector, Mapping2d):
        return
    batch: Batch = next(data.batches(4))
    scores = detector.score_map(batch)
    assert scores.shape == (4, *case.sample_shape[1:]), f"a map of shape {tuple(scores.shape)} for {case.sample_shape}"


def _close(a: Tensor, b: Tensor, complaint: str, tolerance: float = 2e-3) -> None:
    """Equal up to rounding, which Adam's division by small gradients enlarges."""
    assert a.shape == b.shape, f"{complaint}: shapes {tuple(a.shape)} and {tuple(b.shape)}"
    gap = float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))
    assert gap <= tolerance, f"{complaint}: they differ by {100 * gap:.3g} %"


CONTRACTS: dict[str, Callable[[Case], None]] = {
    contract.__name__: contract
    for contract in (
        one_number_per_sample,
        weight_is_copies,
        zero_weight_is_absence,
        scale_of_weights_cancels,
        solve_says_what_left_out_samples_score,
        gradients_are_weighted,
        same_seed_same_scores,
        batch_size_does_not_matter,
        saved_and_loaded_is_equal,
        a_training_that_was_cut_off_goes_on,
        higher_is_more_anomalous,
        learns,
        weighted_scores_follow_target,
        refuses_other_shapes,
        one_pass_gives_what_each_does,
        a_wrapped_detector_is_restored,
        maps_fit_their_samples,
    )
}

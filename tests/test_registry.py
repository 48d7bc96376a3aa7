import contextlib
import inspect
import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tailwise.cli.options import description
from tailwise.core import detector as detector_module
from tailwise.core import peer_names, registry
from tailwise.core.bounds import requirements
from tailwise.core.registry import Value, parse
from tailwise.errors import InputError, did_you_mean
from tailwise.sources.digits import Digits
from tailwise.weights.densities import KDE
from tailwise.weights.steps import Clip, Importance, LatentOutliers


def test_every_member_is_found_by_its_declared_name_and_parsed_by_both_spellings():
    for kind in registry.kinds():
        for name, entry in registry.entries(kind).items():
            assert name == entry.name
            if entry.missing() is None:
                assert registry.find(kind, name) is entry.member


def test_an_unknown_name_is_answered_with_the_closest_one():
    with pytest.raises(InputError, match="no step is called 'Importence'") as caught:
        parse("Importence()", ("step",))
    assert caught.value.hint == "did you mean 'Importance'?"
    with pytest.raises(InputError, match="did you mean 'deep-svdd'"):
        registry.find("detector", "deep-svd")
    assert did_you_mean("zzzz", ["b", "a"]) == "choose one of: a, b"


def test_a_missing_package_is_answered_with_its_extra(monkeypatch):
    entry = registry.Entry("imaginary", int, (("no_such_package_at_all", "graph"),))
    monkeypatch.setitem(registry._entries["detector"], "imaginary", entry)
    with pytest.raises(InputError, match=r"'imaginary' needs no_such_package_at_all .*'tailwise\[graph\]'"):
        registry.find("detector", "imaginary")


def test_one_name_has_one_member():
    with pytest.raises(ValueError, match="two steps are called 'Clip'"):
        registry.register("step", "Clip")(type("Other", (), {}))


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "(lambda: 1)()",
        "Clip(low=open('x'))",
        "Clip.__class__",
        "Clip(*[1, 2])",
        "Clip(**{'low': 0.5})",
        "[Clip() for _ in (1,)]",
        "Clip(0.1 if True else 0.2)",
        "Clip(low=globals)",
        "Clip(",
        "Clip() Clip()",
        "Clip()], [Clip()",
        "Clip() for x in (1,)",
        "Clip(1, 2, 3)",
        "Clip(low='a')",
        "Clip(0.1, 0.2, low=0.3)",
        "Clip({[]: 1})",
        "(" * 5_000,
        "\0",
    ],
)
def test_nothing_is_executed_and_nonsense_is_refused(text):
    with pytest.raises(InputError):
        parse(text, ("step", "density"))


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=30) | st.text("()[]{}*'\\,=.0123456789Clip \n#", max_size=20))
def test_any_text_is_a_value_or_an_input_error(text):
    with contextlib.suppress(InputError):
        parse(text, ("step", "density"))


def test_bare_names_positions_and_options_read_alike():
    assert parse("Clip", ("step",)) == parse("Clip()", ("step",)) == (Clip(),)
    assert parse(" Clip(0.2, high=5) ,Importance(alpha=.5),", ("step",)) == (Clip(0.2, 5), Importance(alpha=0.5))
    assert parse("", ("step",)) == ()
    assert type(parse("deep-svdd", ("detector",))[0]) is registry.find("detector", "deep-svdd")


def test_a_value_prints_only_what_differs():
    @dataclass(frozen=True, repr=False)
    class Point(Value):
        x: float
        y: float = 2.0

    assert repr(Point(1.0)) == "Point(x=1.0)"
    assert repr(Point(1.0, 3.0)) == "Point(x=1.0, y=3.0)"
    assert repr(Importance(target=KDE())) == "Importance(target=KDE())"


def _options(member: type) -> dict[str, object]:
    """What the member must be given, for those that cannot be made of nothing."""
    given = {"path": "somewhere", "source": Digits()}
    wanted = inspect.signature(member).parameters
    return {name: given[name] for name in given if name in wanted and wanted[name].default is inspect.Parameter.empty}


_MEMBERS = [
    pytest.param(entry.member, id=entry.member.__name__)
    for kind in registry.kinds()
    for entry in registry.entries(kind).values()
    if entry.missing() is None
]


@pytest.mark.parametrize("member", _MEMBERS)
def test_no_number_is_taken_that_is_not_finite_or_not_within_what_describe_prints(member):
    for option, text in requirements(member).items():
        refused: list[object] = ["x", float("nan"), float("inf"), -float("inf"), 10**400, object()]
        if "whole" in text:
            refused += [0.5, True, 10**30]
        if above := re.search(r"above (\S+?)(?:,|$| )", text):
            refused.append(float(above[1]) if "whole" not in text else int(above[1]))
        if least := re.search(r"(?:at least|from) (\S+?)(?:,|$| )", text):
            refused.append(int(least[1]) - 1 if "whole" in text else float(least[1]) - 1e-6)
        if most := re.search(r"(?:at most|to) (\S+?)(?:,|$| )", text):
            refused.append(float(most[1]) + 1e-6 if "whole" not in text else int(most[1]) + 1)
        if "odd" in text:
            refused.append(4)
        if "number" not in text or "tuple" in text or "text" in text:
            continue
        for value in refused:
            # A source reads text itself, as of an option on the command line, and has words of its own for it.
            said = option if isinstance(value, str) else rf"{member.__name__} {option} must be .*number"
            with pytest.raises(InputError, match=said):
                member(**_options(member), **{option: value})
        if "None" not in text:
            with pytest.raises(InputError, match=option):
                member(**_options(member), **{option: None})


def test_numbers_of_numpy_and_torch_print_as_numbers():
    spelled = repr(Clip(np.float64(0.2), np.int64(5)))
    assert spelled == "Clip(low=0.2, high=5)"
    assert parse(spelled, ("step",)) == (Clip(0.2, 5),)
    assert repr(LatentOutliers(soft=np.bool_(False))) == "LatentOutliers(soft=False)"
    tree = registry.find("detector", "autoencoder")(hidden=(np.int64(8), 4), code=torch.tensor(3), dense=np.True_)
    assert repr(tree) == "AutoEncoder(hidden=(8, 4), code=3, dense=True)"


_WHOLE_OR_NOT = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()


@settings(max_examples=40, deadline=None)
@given(numbers=st.lists(_WHOLE_OR_NOT, min_size=6, max_size=6))
@pytest.mark.parametrize("member", [m for m in _MEMBERS if issubclass(m.values[0], Value)])
def test_whatever_can_be_made_is_read_back_from_its_spelling(member, numbers):
    optional = [name for name, text in requirements(member).items() if "number" in text and "tuple" not in text]
    with contextlib.suppress(InputError):
        value = member(**_options(member), **dict(zip(optional, numbers, strict=False)))
        kind = registry.kind_of(value)
        assert parse(repr(value), (kind, "step", "density", "source")) == (value,)


def test_what_describe_prints_of_each_option():
    page = description("Rarity")
    assert "  doublings  a whole number from 0 to 20\n" in page
    assert "  common     a number above 0 and at most 1, or None\n" in page
    assert "neighbourhood  an odd whole number from 1 to 9999\n" in description("patch-memory")


def test_a_name_of_another_library_is_answered_with_what_serves_here():
    detectors = set(registry.entries("detector"))
    for name in peer_names._NEAREST_DETECTOR:
        with pytest.raises(InputError, match="no detector is called") as caught:
            registry.find("detector", name)
        nearest = re.search(r"the nearest here is '(\S+)'", caught.value.hint)
        assert nearest is not None
        assert nearest[1] in detectors
    for spelled, nearest_name in (("patchcore", "patch-memory"), ("Patch_Core", "patch-memory"), ("kNN", "nearest-")):
        with pytest.raises(InputError, match=f"the nearest here is '{nearest_name}"):
            registry.parse_one(f"{spelled}()", "detector")
    with pytest.raises(InputError, match=r"Reweighted\(IsolationForest\(\)\)"):
        registry.find("detector", "IForest")
    with pytest.raises(InputError, match="choose one of"):
        registry.find("step", "knn")


def test_a_detector_is_asked_for_methods_alone():
    """From Python 3.12 on, isinstance does not see what a network holds as its parts."""
    protocols = [each for each in vars(detector_module).values() if getattr(each, "_is_protocol", False)]
    assert len(protocols) > 5
    assert not [each for each in protocols if inspect.get_annotations(each)]

import contextlib
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailwise.core import registry
from tailwise.core.registry import Value, parse
from tailwise.errors import InputError, did_you_mean
from tailwise.weights.densities import KDE
from tailwise.weights.steps import Clip, Importance


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

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.settings import RouteTable
from gateway.core.domain import Attributes, Mode
from gateway.route import compile_routes, route


def table(to: tuple[str, ...] = ("a",), **when: str | tuple[str, ...]) -> RouteTable:
    return RouteTable(name="r", when=when, to=to)


def destinations(*routes: RouteTable, **values: str) -> tuple[str, ...]:
    return tuple(route(compile_routes(routes), Attributes(values)))


def test_a_route_without_conditions_matches_everything() -> None:
    assert destinations(table()) == ("a",)


def test_every_matching_route_applies_in_order_and_no_destination_twice() -> None:
    routes = (table(("b", "a"), Modality="CT"), table(("c",), Modality="MR"), table(("a", "d")))
    assert destinations(*routes, Modality="CT") == ("b", "a", "d")


def test_what_matches_no_route_goes_nowhere() -> None:
    assert destinations(table(Modality="CT"), Modality="MR") == ()


def test_all_conditions_of_a_route_must_hold() -> None:
    rule = table(Modality="CT", calling_ae="ARCHIVE")
    assert destinations(rule, Modality="CT", calling_ae="ARCHIVE") == ("a",)
    assert destinations(rule, Modality="CT", calling_ae="OTHER") == ()


@pytest.mark.parametrize(
    ("pattern", "value", "matches"),
    [
        ("CT", "CT", True),
        ("CT", "CTA", False),
        ("CT", "ct", False),
        ("C*", "CTA", True),
        ("*THORAX*", "CT THORAX native", True),
        ("C?", "CT", True),
        ("C?", "C", False),
        ("*", "", False),
        ("*", "x", True),
        ("", "", True),
        ("", "x", False),
        ("A[B]", "A[B]", True),
        ("A[B]", "AB", False),
        ("a.c", "abc", False),
        ("a*", "a\nb", True),
        (("MR", "CT"), "CT", True),
        (("MR", "CT"), "US", False),
        ((), "US", False),
    ],
)
def test_patterns(pattern: str | tuple[str, ...], value: str, matches: bool) -> None:
    assert (destinations(table(Modality=pattern), Modality=value) == ("a",)) is matches


def test_an_absent_attribute_is_an_empty_one() -> None:
    assert destinations(table(Modality="*")) == ()
    assert destinations(table(Modality="")) == ("a",)


def test_one_of_several_values_suffices() -> None:
    assert destinations(table(ImageType="AXIAL"), ImageType="ORIGINAL\\PRIMARY\\AXIAL") == ("a",)
    assert destinations(table(ImageType="ORIGINAL*"), ImageType="ORIGINAL\\PRIMARY") == ("a",)
    assert destinations(table(ImageType="MIP"), ImageType="ORIGINAL\\PRIMARY") == ()


def test_the_rules_name_the_dicom_keywords_that_they_ask_for() -> None:
    rules = compile_routes([table(Modality="CT", calling_ae="A"), table(BodyPartExamined="HEAD", source="s", called_ae="B")])
    assert rules.keywords == {"Modality", "BodyPartExamined"}


@pytest.mark.parametrize("pattern", ["*" * 50 + "x", "*a" * 30 + "*x", "a*" * 30 + "x"])
def test_a_pattern_of_many_stars_is_answered_at_once(pattern: str) -> None:
    assert destinations(table(StudyDescription=pattern), StudyDescription="a" * 1024) == ()
    assert destinations(table(StudyDescription=pattern), StudyDescription="a" * 1024 + "x") == ("a",)


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_patterns_mean_what_a_naive_matcher_means(pattern: str, value: str) -> None:
    assert (destinations(table(StudyDescription=pattern), StudyDescription=value) == ("a",)) is naive(pattern, value)


def naive(pattern: str, value: str) -> bool:
    if pattern and not pattern.strip("*") and not value:
        return False
    if not pattern:
        return not value
    if pattern[0] == "*":
        return any(naive_rest(pattern[1:], value[start:]) for start in range(len(value) + 1))
    return bool(value) and pattern[0] in ("?", value[0]) and naive_rest(pattern[1:], value[1:])


def naive_rest(pattern: str, value: str) -> bool:
    if not pattern.strip("*"):
        return bool(pattern) or not value
    return naive(pattern, value)


def test_the_first_route_that_asks_for_a_transfer_syntax_decides_it() -> None:
    plain = RouteTable(name="p", to=("a", "b"))
    thin = RouteTable(name="t", to=("a",), transfer_syntax="j2k-lossless")
    wide = RouteTable(name="w", to=("a", "b"), transfer_syntax="explicit-le")
    decided = route(compile_routes((plain, thin, wide)), Attributes({}))
    assert decided == {"a": Mode.J2K_LOSSLESS, "b": Mode.EXPLICIT_LE}
    assert route(compile_routes((plain,)), Attributes({})) == {"a": None, "b": None}

"""The revision syntax."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bisect_tool.errors import UsageProblem
from bisect_tool.upstream.revision import Kind, Revision


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("0.32.4", Kind.RELEASE, "0.32.4"),
        ("0.32", Kind.RELEASE, "0.32"),
        ("0.32.4rc1", Kind.RELEASE, "0.32.4rc1"),
        ("0.32.4.dev20260101", Kind.RELEASE, "0.32.4.dev20260101"),
        ("v0.32.0", Kind.COMMIT, "v0.32.0"),
        ("main", Kind.COMMIT, "main"),
        ("main~3", Kind.COMMIT, "main~3"),
        ("HEAD^2~1", Kind.COMMIT, "HEAD^2~1"),
        ("548dd80", Kind.COMMIT, "548dd80"),
        ("5480", Kind.COMMIT, "5480"),
        ("@2026-03-01", Kind.COMMIT, "@2026-03-01"),
        ("@2026-03-01T12:00", Kind.COMMIT, "@2026-03-01T12:00"),
        ("awni/faster-qmv", Kind.COMMIT, "awni/faster-qmv"),
        ("#3764", Kind.PULL, "#3764"),
        ("pr/3764", Kind.PULL, "pr/3764"),
        ("#3764/head", Kind.PULL, "#3764/head"),
        ("#3764^", Kind.PULL, "#3764^"),
        ("path:../mlx", Kind.PATH, "../mlx"),
        ("path:/a b/..", Kind.PATH, "/a b/.."),
    ],
)
def test_kinds(text: str, kind: Kind, name: str) -> None:
    plain = Revision.parse(text)
    assert (plain.kind, plain.name, plain.text, plain.settings) == (kind, name, text, ())
    assert plain.release == (name if kind is Kind.RELEASE else "")
    settled = Revision.parse(f"{text},A=1,B_2=x=y")
    assert (settled.kind, settled.name, settled.text) == (kind, name, f"{text},A=1,B_2=x=y")
    assert settled.settings == (("A", "1"), ("B_2", "x=y"))


@pytest.mark.parametrize(
    ("text", "meant"),
    [("#3764", (3764, "")), ("pr/7", (7, "")), ("pr/7/head", (7, "head")), ("#7^,A=", (7, "^"))],
)
def test_pull_requests(text: str, meant: tuple[int, str]) -> None:
    assert Revision.parse(text).pull == meant


def test_what_is_no_pull_request_has_no_number() -> None:
    with pytest.raises(ValueError, match="no pull request"):
        _ = Revision.parse("main").pull


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a revision is empty"),
        (",A=1", "names no revision"),
        ("-x", "is not a revision"),
        ("--upload-pack=touch x", "is not a revision"),
        ("main x", "is not a revision"),
        ("main\nx", "is not a revision"),
        ("main\0", "is not a revision"),
        ("#x", "is not a pull request"),
        ("#0", "is not a pull request"),
        ("#1/merge", "is not a pull request"),
        ("#", "is not a pull request"),
        ("path:", "names no folder"),
        ("path:,A=1", "names no folder"),
        ("path:a\0b", "names no folder"),
        ("v1..v2", "is a range"),
        ("0.32.4,A", "'A' in '0.32.4,A' is not a setting"),
        ("path:x,1=2", "write it as path:x,NAME=VALUE"),
    ],
)
def test_what_is_no_revision(text: str, says: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        Revision.parse(text)
    assert says in caught.value.line()


@given(st.text() | st.from_regex(r"(path:|#|pr/|v|@)?[\w.~^/-]*(,\w*=\w*)*", fullmatch=True))
def test_any_text_is_a_revision_or_a_usage_problem(text: str) -> None:
    try:
        revision = Revision.parse(text)
    except UsageProblem:
        return
    assert revision.text == text
    assert not revision.name.startswith("-") or revision.kind is Kind.PATH
    assert text.startswith((revision.name, f"path:{revision.name}"))


def test_a_label_is_replaced_and_the_rest_stays() -> None:
    revision = dataclasses.replace(Revision.parse("0.32.4,A=1"), text="0.32.4,A=1 (2)")
    assert (revision.release, revision.settings) == ("0.32.4", (("A", "1"),))
    assert Revision("label", "9.9.9").release == "9.9.9"

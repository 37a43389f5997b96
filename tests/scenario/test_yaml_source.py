"""The YAML reader: scalars without the traps of YAML 1.1, and files that are not one plain mapping."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest

from simulator.errors import InputError
from simulator.scenario.yaml_source import MAX_BYTES, read_file, read_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e9", 1e9), ("1E-3", 1e-3), (".5", 0.5), ("-7", -7), ("010", 10), ("inf", inf), (".inf", inf),
        ("-.inf", -inf), ("no", "no"), ("on", "on"), ("off", "off"), ("yes", "yes"), ("True", "True"),
        ("12:30", "12:30"), ("0x10", "0x10"), ("0o7", "0o7"), ("1_000", "1_000"), ("2026-11", "2026-11"),
        ("2026-11-22", "2026-11-22"),
        (".nan", ".nan"), ("1e999", "1e999"), ("9" * 5000, "9" * 5000), ("10 us", "10 us"), ("=", "="),
        ("true", True), ("false", False), ("null", None), ("~", None), ("", None),
        ("'5'", "5"), ('"true"', "true"), ("'inf'", "inf"),
    ],
)  # fmt: skip
def test_scalars(text, value):
    """YAML 1.1 would read 1e9 as text, `no` as false, 12:30 as 750, 010 as 8 and 1_000 as 1000."""
    found = read_text(f"a: {text}\n", "f").data["a"]
    assert found == value and type(found) is type(value)


def test_keys_are_text_and_have_places():
    """A key `on` must not become true; places are those of key and value, from 1."""
    source = read_text("on: 1\nb:\n  c:   x\n", "f")
    assert source.data == {"on": 1, "b": {"c": "x"}}
    assert (source.exact(("b", "c"), key=True), source.exact(("b", "c"))) == ("f:3:3", "f:3:8")


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "f: the file is empty; a scenario needs at least workload, model and cluster"),
        ("# only a comment\n", "f: the file is empty; a scenario needs at least workload, model and cluster"),
        ("---\n", "f: the file is empty; a scenario needs at least workload, model and cluster"),
        ("- a\n- b\n", "f:1:1: expected a mapping with keys such as 'model:' and 'workload:', found a list"),
        ("hello\n", "f:1:1: expected a mapping with keys such as 'model:' and 'workload:', found a single value"),
        ("a: 1\n---\nb: 2\n", "f:2:1: a second document starts here ('---'); a scenario file holds one"),
        ("a:\n\tb: 1\n", "f:2:1: a tab in the indentation; YAML indents with spaces only"),
        ("a:\n  \tb: 1\n", "f:2:3: a tab in the indentation; YAML indents with spaces only"),
        (BOMB, "f:1:4  a: anchors and aliases ('&name', '*name') are not supported; write it out"),
        ("a: *b\n", "f:1:4  a: anchors and aliases ('&name', '*name') are not supported; write it out"),
        ("a: {<<: {b: 1}}\n", "f:1:5  a: merge keys ('<<') are not supported; write the values out"),
        ("a: !!python/object/apply:os.system [ls]\n",
         "f:1:4  a: tags such as '!!python/object/apply:os.system' are not supported"),
        ("a: !secret x\n", "f:1:4  a: tags such as '!secret' are not supported"),
        ("? [a, b]\n: 1\n", "f:1:3: a key must be plain text"),
        ("a: " + "[" * 100_000, "f:1:24  a.0.0: nested more than 20 levels deep"),
        ("a: \x00\n", "f: contains a character that YAML does not allow (a control character?)"),
    ],
)  # fmt: skip
def test_refused(text, expected):
    """Each file that is not one plain mapping gets one message with its place, not a traceback or a wrong reading."""
    with pytest.raises(InputError) as caught:
        read_text(text, "f")
    assert str(caught.value) == expected + "\n1 problem; nothing was run"


def test_broken_syntax_has_its_line():
    """The parser's own message carries the place; the words are those of PyYAML."""
    with pytest.raises(InputError, match=r"^f:2:2: not valid YAML: while parsing a flow sequence"):
        read_text("a: [1, 2\nb: 3\n", "f")


def test_all_duplicates_are_found():
    """PyYAML keeps the last of two equal keys silently; a scenario would run with a value its author does not see."""
    source = read_text("a: 1\nb: {c: 1, c: {d: 1, d: 2}}\na: 2\n", "f")
    assert source.data == {"a": 1, "b": {"c": 1}}
    assert [str(problem) for problem in source.problems] == [
        "f:2:11  b.c: the key is given twice (first on line 2); remove one",
        "f:2:21  b.c.d: the key is given twice (first on line 2); remove one",
        "f:3:1  a: the key is given twice (first on line 1); remove one",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: " + b"x" * MAX_BYTES,
         "f.yaml: larger than 1 MB; a scenario is a short text file (traces are named by their path)"),
        (b"a: 1\nb: \xff\xfe", "f.yaml:2: not UTF-8 text; a scenario is a YAML text file"),
        (None, "f.yaml: no such file"),
    ],
)  # fmt: skip
def test_unreadable_files(tmp_path: Path, monkeypatch, content, expected):
    """A trace, a binary or a missing file in the place of a scenario is the user's error, not a bug of ours."""
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("f.yaml").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_file("f.yaml")
    assert str(caught.value).splitlines()[0] == expected


def test_a_folder_is_no_scenario(tmp_path: Path):
    """`speckvsim run scenarios/` must say what it wants."""
    with pytest.raises(InputError, match="is a folder; expected a scenario file"):
        read_file(tmp_path)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path):
    """Files from some editors start with one; `\\ufeffname` would be an unknown key."""
    (tmp_path / "f.yaml").write_bytes(b"\xef\xbb\xbfname: x\n")
    assert read_file(tmp_path / "f.yaml").data == {"name": "x"}

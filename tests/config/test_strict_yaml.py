"""YAML as people mean it: nothing is read in another sense, nothing is dropped, and nothing ends in a traceback."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.reading import apply_overrides, parse_config, read_config
from pipeline.config.strict_yaml import dump_yaml, parse_yaml, quoted
from pipeline.errors import ConfigError

BASE = "run_directory: r\ninput: {image: image.zarr}\n"
TEXTS = st.one_of(
    st.text(),
    st.sampled_from(["1e3", "4:00", "010", "yes", "null", "~", "=", "<<", "2021-01-01", "2021-99-99", ".inf", "0x1"]),
    st.text(alphabet="\r\n\t\x85\u2028\ufeff'\"#:[]{},&*!|>%@`-?\\ $a1"),
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63), FLOATS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)


@given(VALUES)
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read_again(value: Any) -> None:
    """Every plain value comes back from the text that petaseg writes, also through a reader of YAML 1.1."""
    text = dump_yaml({"key": value})
    assert parse_yaml(text, "file") == {"key": value}
    assert yaml.safe_load(text) == {"key": value}


@given(st.text(alphabet=st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])))
@settings(max_examples=200, deadline=None)
def test_a_quoted_text_is_one_line_and_itself(text: str) -> None:
    """A text of one line stays on one line, before a comment too."""
    assert "\n" not in quoted(text)
    assert parse_yaml(f"key: {quoted(text)}   # comment", "file") == {"key": text}


@given(st.one_of(st.text(), st.text(alphabet=":-?[]{},&*!|>'\"%@`#\n\t ab01.<~="), st.binary()))
@settings(max_examples=400, deadline=None)
def test_any_text_is_read_or_refused_in_words(text: str | bytes) -> None:
    """No text, however malformed, raises anything but ``ConfigError``, as a file and as an override."""
    with suppress(ConfigError):
        parse_yaml(text, "file")
    if isinstance(text, str):
        with pytest.raises(ConfigError):  # run_directory is missing, if it is nothing else
            parse_config(apply_overrides({}, [f"execution.workers={text}"]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' is given twice, first in line 1"),
        ("t: {a: 1, a: 1}", "the key 'a' is given twice"),
        ("t: &t {x: 1, x: 2}\nu: *t", "the key 'x' is given twice"),
        ("1: a\n'1': b", "the key '1' is given twice"),
        ("<<: {a: 1}\n<<: {b: 1}", "given twice"),
        ("a: &a [*a]", "recursive"),
        ("a: &a {b: *a}", "recursive"),
        ("a: 2023-02-30", "'2023-02-30' is no date; put a text in quotes"),
        ("a: !!int many", "'many' is no whole number"),
        ("a: !!bool maybe", "'maybe' is no yes or no"),
        ("a: !!timestamp never", "'never' is no date"),
        ("a: !!binary aGk=", "tag"),
        ("a: !!python/name:os.system x", "tag"),
        (f"a: 1{'0' * 6000}", "absurd number"),
        ("a: .inf", "no finite number"),
        ("a: -.INF", "no finite number"),
        ("a: .NaN", "no finite number"),
        ("a: 1e400", "no finite number"),
        ("a: b\n\tc: d", "with blanks, not with tabs"),
        ("[a, b]: 1", "keys are words"),
        ("a\0: 1", "special characters"),
        ("[" * 3000, "nested too deeply"),
        ("a: b: c", "in quotes"),
    ],
)
def test_what_can_mean_two_things_is_refused_with_line_and_remedy(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "run.yaml")
    assert words in str(caught.value)


def test_aliases_that_multiply_are_refused_before_they_are_written_out() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 12)]
    with pytest.raises(ConfigError, match="aliases make"):
        parse_yaml("\n".join(lines), "run.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4:00:00", "4:00:00"),
        ("1:30", "1:30"),
        ("010", "010"),
        ("1e-3", 0.001),
        ("2E5", 200000.0),
        ("-1.5e+2", -150.0),
        ("1_000", 1000),
        ("0xff", 255),
        ("yes", True),
        ("Off", False),
        ("2021-1-2", "2021-1-2"),
        ("2021-01-02 10:00:00", "2021-01-02 10:00:00"),
        ("=", "="),
        ("", None),
        ("0x_", "0x_"),
    ],
)
def test_forms_that_people_write_are_read_as_they_are_meant(text: str, value: object) -> None:
    assert parse_yaml(f"key: {text}", "file") == {"key": value}


def test_anchors_and_merge_keys_work() -> None:
    """A merged table may be changed, which is no key given twice; tables are merged as YAML says."""
    text = "base: &b {cpus: 2, threads: 2}\nmore: &m {<<: *b, threads: 4}\nlast: {<<: [*m, *b], cpus: 8}\nagain: *m"
    found = parse_yaml(text, "file")
    assert found["more"] == found["again"] == {"cpus": 2, "threads": 4}
    assert found["last"] == {"cpus": 8, "threads": 4}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_files_of_other_editors_are_read(encoding: str, end: str) -> None:
    """A byte order mark, UTF-16 and the line ends of Windows change nothing."""
    assert read_config(BASE.replace("\n", end).encode(encoding), "run.yaml") == read_config(BASE, "run.yaml")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("execution: {workers: 1:30}", 'execution.workers is "1:30": input should be a valid integer'),
        ("chunk_shape: 64", "chunk_shape is 64: it must be a list, such as [64, 64, 64]"),
        ("chunk_shape: [64, 64, 64, 1]", "chunk_shape is [64, 64, 64, 1]: it must have at most 3 values, not 4"),
        ("execution: [a]", 'execution is ["a"]: it must be a table: lines of key: value, indented below it, or {key'),
        ("supervoxels: 3", "supervoxels is 3: it must be a table"),
        ("evaluation: {labels: 2021}", "evaluation.labels is 2021: input should be a valid string; put it in quotes"),
        ("inference: {compile: maybe}", "write true or false"),
        ("chunk_shape: [64, 64, 1000000000000000]", "chunk_shape.2"),
        ("execution: {backoff_seconds: 1.0e+300}", "execution.backoff_seconds"),
        ("execution: {workers: 99999999999}", "execution.workers"),
        ("cluster: {workers: {memory_gb: 1.0e+12}}", "cluster.workers.memory_gb"),
        ('evaluation: {labels: ""}', "the path is empty"),
        ("2021-01-01: 2", "2021-01-01: unknown key"),
    ],
)
def test_a_value_of_another_kind_or_size_is_refused_at_its_place(line: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(f"{BASE}{line}\n", "run.yaml")
    assert words in str(caught.value)


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("key", ["backoff_seconds", "lease_seconds", "timeout_seconds"])
def test_numbers_that_are_not_finite_are_refused_from_programs_too(key: str, number: float) -> None:
    with pytest.raises(ConfigError, match=key):
        parse_config({"run_directory": "r", "input": {"image": "i"}, "execution": {key: number}})


@pytest.mark.parametrize(
    "overrides",
    [
        ["execution.workers=2", "execution.workers=3"],
        ["execution.workers=2", "execution={executor: dask}"],
        ["chunk_shape=[64, 64, 64]", " chunk_shape =[32, 32, 32]"],
    ],
)
def test_an_override_that_takes_back_another_is_refused(overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match="takes back"):
        apply_overrides({}, overrides)


def test_an_override_may_add_to_another() -> None:
    found = apply_overrides({}, ["execution={executor: dask}", "execution.workers=3", "execution.workers_more=1"])
    assert found == {"execution": {"executor": "dask", "workers": 3, "workers_more": 1}}


@pytest.mark.parametrize("value", ["2021-99-99", "&a [*a]", "{a: 1, a: 2}", ".nan", "[", "!!int x"])
def test_an_override_is_as_strict_as_a_file(value: str) -> None:
    with pytest.raises(ConfigError, match="--set 'run_directory="):
        apply_overrides({}, [f"run_directory={value}"])

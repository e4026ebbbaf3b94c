"""A record as a line: it comes back, or it is nothing."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import decode, encode

RECORDS = st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text())


@given(record=RECORDS, log=st.text())
def test_a_line_says_what_was_written(record, log):
    line = encode(record, log)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode(line[:-1], log) == record


@given(record=RECORDS, log=st.text(), place=st.integers(0), bit=st.integers(0, 7))
def test_a_line_with_a_flipped_bit_says_nothing(record, log, place, bit):
    line = bytearray(encode(record, log)[:-1])
    line[place % len(line)] ^= 1 << bit
    assert decode(bytes(line), log) in (None, record)  # the checksum in capital letters is the same number


def test_a_line_of_another_log_says_nothing():
    assert decode(encode({"done": [0, 1, 2, 3]}, "A 1")[:-1], "A 2") is None


@given(line=st.binary())
def test_any_bytes_are_read_without_an_error(line):
    decode(line)

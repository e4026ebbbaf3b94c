"""A record written as a line comes back as it was, or, if the line is damaged, not at all."""

import json
import zlib

from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger.records import decode, encode

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
    assert decode(bytes(line), log) in (None, record)  # a digit in upper case is the same number


def test_a_line_of_another_log_says_nothing():
    assert decode(encode({"done": [0, 1, 2, 3]}, "A 1")[:-1], "A 2") is None


@given(line=st.binary())
def test_bytes_that_are_no_line_say_nothing(line):
    """Random bytes decode to no record and raise no error."""
    assert decode(line) is None


@given(text=st.binary())
def test_a_line_that_is_whole_but_is_not_json_says_nothing(text):
    """A line with a right checksum whose text is no JSON decodes to no record and raises no error."""
    try:
        expected = json.loads(text)
    except ValueError:
        expected = None
    assert decode(b"%08x %s" % (zlib.crc32(text), text)) == expected

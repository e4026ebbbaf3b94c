"""A record as a line: it comes back, or it is nothing."""

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
    assert decode(bytes(line), log) in (None, record)  # the checksum in capital letters is the same number


def test_a_line_of_another_log_says_nothing():
    assert decode(encode({"done": [0, 1, 2, 3]}, "A 1")[:-1], "A 2") is None


@given(line=st.binary())
def test_bytes_that_are_no_line_say_nothing(line):
    """Fails if a damaged log ends a run in a traceback, or counts."""
    assert decode(line) is None


@given(text=st.binary())
def test_a_line_that_is_whole_but_is_not_json_says_nothing(text):
    """Fails if what something else has written into the log, with a checksum, ends a run in a traceback."""
    try:
        expected = json.loads(text)
    except ValueError:
        expected = None
    assert decode(b"%08x %s" % (zlib.crc32(text), text)) == expected

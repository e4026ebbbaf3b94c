"""Mutations: single changes of the source that break one promise each, and the test that notices each of them.

    python -m tests.mutations                       every mutation, in about a minute
    python -m tests.mutations --only tie-of-scores  one of them
    python -m tests.mutations --list                what there is

A test that passes whatever the code does proves nothing. Here a copy of the source is changed in one place, and the
test that watches over the promise must fail in the copy and pass without the change.

    table.py      the mutations: name, promise, file, text and its replacement, test
    tree.py       a copy of the source, in which mutations are applied and tests are run
    __main__.py   the command
"""

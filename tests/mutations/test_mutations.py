"""Each mutation is killed by the test that it names, and the command says so, or says what is wrong."""

import ast
from collections import Counter
from dataclasses import replace

import pytest

from tests.mutations import __main__ as command
from tests.mutations.table import MUTATIONS
from tests.mutations.tree import ROOT, Mutation, Tree

names = pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return Tree.copy(ROOT, tmp_path_factory.mktemp("mutations"))


def test_each_mutation_has_a_name_of_its_own():
    assert [name for name, count in Counter(mutation.name for mutation in MUTATIONS).items() if count > 1] == []


@names
def test_its_text_occurs_once_and_leaves_a_program(mutation):
    """The text of a mutation occurs exactly once in its file, and the changed file is valid Python of other meaning."""
    source = (ROOT / mutation.file).read_text()
    assert ast.dump(ast.parse(mutation.applied_to(source))) != ast.dump(ast.parse(source))


@names
def test_its_promise_is_a_sentence(mutation):
    assert mutation.promise[0].isupper()
    assert mutation.promise.endswith(".")


def test_all_named_tests_exist_and_pass_without_a_mutation(tree):
    found = tree.check(sorted({mutation.test for mutation in MUTATIONS}), keep_byte_code=True)
    assert found.returncode == 0, found.stdout


@names
def test_it_is_killed_by_the_test_that_it_names(tree, mutation):
    """The named test runs and fails in a copy of the source to which the mutation was applied."""
    verdict, output = command.judge(tree, mutation)
    assert verdict == "killed", output


def test_a_mutated_tree_is_as_it_was_afterwards(tree):
    """After its test has run, the changed file has its old bytes and its old time."""
    mutation = next(mutation for mutation in MUTATIONS if mutation.name == "damaged-lines")
    path = tree.folder / mutation.file
    before = path.read_bytes(), path.stat().st_mtime_ns
    tree.check_mutated(mutation)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


# ---------------------------------------------------------------- the command, on a program of two lines

HOLDS = Mutation("sum", "Two numbers are added.", "pipeline/add.py", "a + b", "a - b", "tests/test_add.py::test_sum")


@pytest.fixture
def root(tmp_path):
    """A source tree with one function, and tests of it."""
    for part in ("petaseg", "pipeline", "workflows", "tests"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "pipeline" / "add.py").write_text("def add(a, b):\n    return a + b\n")
    (tmp_path / "tests" / "conftest.py").write_text(
        "from hypothesis import settings\nsettings.register_profile('mutations')\n"
    )
    (tmp_path / "tests" / "test_add.py").write_text(
        "from pipeline.add import add\n"
        "def test_sum(): assert add(1, 2) == 3\n"
        "def test_weak(): assert add(1, 0) == 1\n"
        "def test_wrong(): assert add(1, 2) == 4\n"
    )
    return tmp_path


def test_a_killed_mutation_is_told_with_its_test(root, capsys):
    assert command.main([], [HOLDS], root) == 0
    printed = capsys.readouterr().out
    for part in ("1/1 killed", "sum: Two numbers are added.", "test_add.py::test_sum", "1 of 1 mutations are killed"):
        assert part in printed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"test": "tests/test_add.py::test_weak"}, ["SURVIVED", "0 of 1 mutations are killed"]),
        ({"test": "tests/test_add.py::test_wrong"}, ["fail without any mutation", "test_wrong"]),
        ({"test": "tests/test_add.py::test_none"}, ["fail without any mutation", "test_none"]),
        ({"text": "a * b"}, ["NOT FOUND", "'a * b' occurs 0 times in pipeline/add.py"]),
        ({"text": "a"}, ["NOT FOUND", "it must occur once: correct it"]),
        ({"replacement": "a +"}, ["BROKEN", "0 of 1 mutations are killed"]),
    ],
    ids=["survives", "fails anyway", "no such test", "text is gone", "text occurs twice", "no program"],
)
def test_what_is_wrong_with_a_mutation_is_said_and_fails(root, capsys, change, words):
    """The command fails and says what is wrong with a mutation that its test does not kill."""
    assert command.main([], [replace(HOLDS, **change)], root) == 1
    printed = capsys.readouterr().out
    assert [word for word in words if word not in printed] == []
    assert (root / "pipeline" / "add.py").read_text().endswith("a + b\n")


def test_one_mutation_may_be_chosen_and_all_listed(root, capsys):
    other = replace(HOLDS, name="other", replacement="b - a")
    assert command.main(["--only", "other"], [HOLDS, other], root) == 0
    assert "1 of 1 mutations are killed" in capsys.readouterr().out
    assert command.main(["--list"], [HOLDS, other], root) == 0
    assert capsys.readouterr().out.count("Two numbers are added.") == 2
    assert command.main(["--only", "third"], [HOLDS, other], root) == 1
    assert "no mutation is called third; --list names all 2" in capsys.readouterr().out


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])
    assert ended.value.code == 0
    assert "--only tie-of-scores --verbose" in capsys.readouterr().out

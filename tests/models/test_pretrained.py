import pickle

import pytest
import torch
from torch import nn

from pipeline.errors import ModelError
from pipeline.models.pretrained import fit, read_weights


class Payload:
    """An object that prints when it is unpickled, which must never happen."""

    def __reduce__(self):
        return (print, ("this ran",))


def test_a_torch_file_with_code_in_it_is_refused_and_does_not_run(tmp_path, capsys):
    """A torch file that holds anything but tensors is refused, and the code in it does not run."""
    for name, value in (("bare.pt", Payload()), ("hidden.pth", {"weight": torch.zeros(1), "more": Payload()})):
        torch.save(value, tmp_path / name)
        with pytest.raises(ModelError, match="code in weights is never run"):
            read_weights(tmp_path / name)
    (tmp_path / "old.pt").write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(ModelError, match="code in weights is never run"):
        read_weights(tmp_path / "old.pt")
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize("table", ["state_dict", "model", None])
def test_a_table_of_tensors_is_found(tmp_path, table):
    """The tensors of a torch file are found at its top level and under the keys that trainers usually write."""
    state = {"weight": torch.arange(3.0)}
    torch.save(state if table is None else {table: state, "epoch": 3}, tmp_path / "w.pth")
    assert torch.equal(read_weights(tmp_path / "w.pth")["weight"], state["weight"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.pth", None, "does not exist"),
        ("text.safetensors", b"weights", "is no safetensors file"),
        ("text.pth", b"weights", "is no torch file"),
    ],
)
def test_files_that_are_none_are_refused(tmp_path, name, content, message):
    """A missing file and a file of another format are refused with an error of our own."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_weights(tmp_path / name)


def test_what_is_no_table_of_tensors_is_refused(tmp_path):
    """A torch file with a list of numbers is refused, since weights are a table of tensors."""
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ModelError, match="no table of tensors"):
        read_weights(tmp_path / "list.pth")


def test_counters_of_batches_may_be_missing():
    """Weights fit without the counters of batches, which change no output; without a bias they are refused."""
    layer = nn.BatchNorm3d(2)
    state = {name: value + 1 for name, value in layer.state_dict().items() if "num" not in name}
    fit(layer, state, "it")
    assert torch.equal(layer.weight, torch.full((2,), 2.0))
    with pytest.raises(ModelError, match="do not fit it: bias is missing"):
        fit(layer, {name: value for name, value in state.items() if name != "bias"}, "it")

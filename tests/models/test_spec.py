import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save

from pipeline.errors import ModelError
from pipeline.models import MODELS, spec
from pipeline.models.spec import (
    ModelCard,
    Normalisation,
    build,
    bundled_cards,
    bundled_folder,
    bundled_names,
    load_card,
    load_model,
    save_model,
)
from tests.contracts.model import NEAREST, seeded

ARGUMENTS = {
    "widths": (3, 4),
    "horizontal": ((1, 3, 3), (1, 1, 1)),
    "pools": ((1, 2, 2),),
    "steps": 2,
    "out_channels": 4,
}
CARD = ModelCard(
    name="small",
    architecture="gamma_net_3d",
    arguments=ARGUMENTS,
    patch_shape=(4, 8, 8),
    overlap=(1, 2, 2),
    normalisation=Normalisation(offset=3.5, scale=127.0),
    offsets=(*NEAREST, (0, 0, -9)),
    resolution_nm=(40.0, 4.5, 4.0),
    threshold=0.35,
    training_data="random: none at all; \u00b5-test",
    scores={"F1": 0.25, "part": "z >= 185"},
    licence="CC0-1.0",
)


@pytest.fixture
def folder(tmp_path):
    """A saved model."""
    save_model(tmp_path / "model", seeded("gamma_net_3d", ARGUMENTS), CARD)
    return tmp_path / "model"


def edit(folder, **changes):
    """Change keys of a stored card; None removes a key."""
    path = folder / "card.yaml"
    card = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump({key: value for key, value in card.items() if value is not None}))


def replace_weights(folder, data):
    """Write other weights, and name their checksum in the card."""
    (folder / "weights.safetensors").write_bytes(data)
    edit(folder, sha256=hashlib.sha256(data).hexdigest())


def test_a_card_comes_back_with_every_field(folder):
    """A saved card comes back with every field, and with the checksum of the weights."""
    card = load_card(folder)
    given = CARD.model_dump(exclude={"weights", "sha256", "arguments"})
    assert card.model_dump(exclude={"weights", "sha256", "arguments"}) == given
    assert card.arguments == json.loads(json.dumps(ARGUMENTS))
    assert card.sha256 == hashlib.sha256((folder / card.weights).read_bytes()).hexdigest()


def test_a_model_is_named_by_its_card_its_folder_or_as_bundled(folder, monkeypatch):
    """A model can be named by its card, by its folder, or by the name of a bundled model."""
    assert load_card(folder) == load_card(str(folder)) == load_card(folder / "card.yaml")
    monkeypatch.chdir(folder)
    assert load_card("card.yaml") == load_card(folder)
    assert load_card("identity").name == "identity"


def test_a_folder_without_a_card_hides_no_bundled_model(tmp_path, monkeypatch):
    """A folder of a bundled model's name is taken if a card lies in it, and otherwise is no model."""
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "identity"
    own.mkdir()
    assert load_card("identity") == load_card(bundled_folder("identity"))
    (own / "card.yaml").write_text((bundled_folder("identity") / "card.yaml").read_text().replace("identity", "own", 1))
    assert load_card("identity").name == "own"


def test_the_folder_may_move(folder, tmp_path):
    """A saved model loads after its folder has moved, because the card holds no absolute path."""
    moved = folder.rename(tmp_path / "elsewhere")
    assert load_model(load_card(moved)).card.weights_url == str(moved / "weights.safetensors")
    assert str(tmp_path) not in (moved / "card.yaml").read_text()


def test_only_the_model_and_its_card_are_left_in_the_folder(folder):
    """Saving a model leaves its card and its weights in the folder, and no partial file."""
    assert sorted(path.name for path in folder.iterdir()) == ["card.yaml", "weights.safetensors"]


def test_one_changed_bit_of_the_weights_is_found(folder):
    """Weights with one changed bit are refused, and the message gives both checksums."""
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    said = load_card_error(folder)
    assert "sha256" in said
    assert hashlib.sha256(data).hexdigest()[:12] in said
    assert yaml.safe_load((folder / "card.yaml").read_text())["sha256"][:12] in said


def test_truncated_weights_are_found(folder):
    """Truncated weights are refused because of their checksum."""
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "sha256" in load_card_error(folder)


def test_missing_weights_are_named(folder):
    """A card without its weights is refused, and the message names the missing file."""
    (folder / "weights.safetensors").unlink()
    assert "weights.safetensors does not exist" in load_card_error(folder)


def load_card_error(name):
    """Load a card that must be refused, and return the message."""
    with pytest.raises(ModelError) as caught:
        load_card(name)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "unet"}, "architecture is 'unet'; there are gamma_net_3d, identity"),
        ({"colour": "red"}, "colour"),
        ({"patch_shape": None}, "patch_shape"),
        ({"patch_shape": [4, 8]}, "patch_shape"),
        ({"patch_shape": [4, 8, 0]}, "patch_shape"),
        ({"overlap": [4, 2, 2]}, "less than the patch"),
        ({"offsets": [[0, 0, -1], [0, -1, 0], [-1, 0, 0]]}, "the first three must be"),
        ({"sha256": None}, "weights and sha256 belong together"),
        ({"activation": "tanh"}, "activation"),
        ({"threshold": 1.5}, "threshold"),
        ({"normalisation": {"scale": 0.0}}, "scale"),
        ({"weights": "../weights.safetensors"}, "beside the card"),
    ],
)
def test_a_wrong_card_is_refused(folder, changes, message):
    """A card with a wrong field is refused when it is loaded, and the message says what is wrong."""
    edit(folder, **changes)
    assert message in load_card_error(folder)


def test_unknown_models_are_refused_with_the_names_of_the_known(tmp_path):
    """A name or path that is no model is refused, and the message repeats it and lists the bundled models."""
    for name in ("fib52-tiny", str(tmp_path / "card.yaml"), str(tmp_path)):
        said = load_card_error(name)
        assert name in said
        assert "identity" in said


def test_arguments_that_the_network_does_not_have_are_refused(folder):
    """An argument that the network does not have is refused, and the message lists those that it takes."""
    edit(folder, arguments={**ARGUMENTS, "depth": 3} | {"widths": [3, 4]})
    with pytest.raises(ModelError, match=r"refuses its arguments depth: .*it takes widths, horizontal"):
        load_model(load_card(folder))


def test_weights_that_do_not_fit_are_named(folder):
    """Weights that do not fit are refused, and every missing, unknown or wrongly shaped tensor is named."""
    state = seeded("gamma_net_3d", ARGUMENTS).state_dict()
    del state["readout_norm.gain"]
    state["readout.bias"] = torch.zeros(5)
    state["surplus"] = torch.zeros(1)
    replace_weights(folder, save(state))
    with pytest.raises(ModelError) as caught:
        load_model(load_card(folder))
    for part in ("readout_norm.gain is missing", "readout.bias has shape (5,), not (4,)", "surplus is not known"):
        assert part in str(caught.value)


def test_another_number_of_affinities_than_offsets_is_refused(folder):
    """A card is refused if its network has another number of affinities than it has offsets."""
    edit(folder, offsets=[list(offset) for offset in NEAREST])
    with pytest.raises(ModelError, match=re.escape("3 offsets")):
        load_model(load_card(folder))


class Trap:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_and_never_run(folder, tmp_path):
    """Weights in a pickle are refused, and the code in it never runs."""
    torch.save({"readout.bias": Trap(tmp_path / "sprung")}, tmp_path / "weights.pt")
    replace_weights(folder, (tmp_path / "weights.pt").read_bytes())
    with pytest.raises(ModelError, match="safetensors"):
        load_model(load_card(folder))
    assert not (tmp_path / "sprung").exists()


def test_every_bundled_model_loads():
    """Every bundled model loads, takes patches of its card's shape, and states its training data and licence."""
    assert "identity" in bundled_names()
    for name, card in zip(bundled_names(), bundled_cards(), strict=True):
        assert card.name == name
        assert card.training_data
        assert card.licence
        loaded = load_model(card)
        multiple = getattr(loaded.module, "multiple", (1, 1, 1))
        assert not any(p % m for p, m in zip(card.patch_shape, multiple, strict=True))
        assert not loaded.module.training


def test_every_listed_architecture_exists():
    """Every listed architecture has a class, which refuses an argument that it does not know."""
    for architecture in MODELS:
        with pytest.raises(ModelError, match="refuses its arguments"):
            build(architecture, {"no such argument": 1})


def test_the_digest_is_of_what_decides_about_the_output():
    """The digest depends on what decides the output, and not on name, scores, threshold, training data or licence."""
    same = CARD.model_copy(
        update={"name": "other", "scores": {}, "threshold": None, "training_data": "", "licence": ""}
    )
    assert same.digest == CARD.digest
    changes = {
        "arguments": {**ARGUMENTS, "steps": 3},
        "sha256": "0",
        "activation": "none",
        "normalisation": Normalisation(),
        "offsets": NEAREST,
        "architecture": "identity",
    }
    digests = {CARD.model_copy(update={key: value}).digest for key, value in changes.items()}
    assert len(digests | {CARD.digest}) == len(changes) + 1


@pytest.mark.parametrize("arguments", [{}, {"host": "resnet_fcn"}])
def test_a_revision_of_an_architecture_changes_the_digest(monkeypatch, arguments):
    """Where the arithmetic of an architecture (or of a host) was revised, its cards have another digest."""
    card = CARD.model_copy(update={"architecture": "rignet" if arguments else "resnet_fcn", "arguments": arguments})
    revised = card.digest
    monkeypatch.setattr(spec, "REVISIONS", {})
    assert card.digest != revised

"""Each network states which patches it takes: a patch is refused with value, rule and remedy, or goes through it."""

import json
import re

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, ModelError
from pipeline.geometry import Vec
from pipeline.inference.options import PredictOptions
from pipeline.inference.patch_check import check_patch
from pipeline.models import MODELS
from pipeline.models.facts import named_sizes
from pipeline.models.patch_rules import PatchRule, states_rule
from pipeline.models.spec import LoadedModel, ModelCard, build, named_arguments

SMALL_RESNET = {"embedding_size": 4, "widths": [4, 4, 4, 4], "depths": [1, 1, 1, 1], "block": "basic"}
GAMMA_2D = {"widths": [3, 4], "horizontal": [7, 5], "steps": 1}
UNET = {"widths": [4, 6, 8], "isotropy": [False, True, True]}
OTHERS = [
    ("identity", {}),
    ("resnet_fcn", SMALL_RESNET),
    ("canvas_lstm", {**SMALL_RESNET, "dilations": [1], "hidden": [4, 4], "steps": 1}),
    *(("gamma_net_2d", {**GAMMA_2D, "variant": variant}) for variant in ("torch_port", "tensorflow")),
    ("gamma_net_vgg", {"width": 0.05, "steps": 1, "narrow": None, "variant": "torch_port"}),
    *(
        ("connectomics_unet", {**UNET, "padding": padding, "pooling": pooling, "stride": stride})
        for padding in ("replicate", "reflect", "circular")
        for pooling in (False, True)
        for stride in ([1, 1, 1], [1, 2, 2])
    ),
    ("connectomics_unet", {**UNET, "published": True}),
    ("connectomics_unet", {**UNET, "isotropy": [True, False, False], "padding": "reflect"}),
]
"""Architectures without named sizes, and arguments on which the rule depends."""
SLOW = ("paper", "base", "superhuman", "rsunet", "paper_plus", "base_thick", "table", "isotropic")
"""Named sizes that differ from a small one by their width alone."""
SIZES = [tuple(name.split("/")) for name in named_sizes() if not name.endswith(SLOW)]
SUBJECTS = [(name, named_arguments(name, size)) for name, size in SIZES] + OTHERS
MOST = 40_000
"""Voxels of the largest patch that goes through a network here."""
NEAREST = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))


def loaded(architecture, arguments):
    """The network with random weights and three outputs, and a card for it."""
    torch.manual_seed(0)
    arguments = {**arguments, "out_channels": 3}
    card = ModelCard(
        **{"name": "any", "architecture": architecture, "arguments": arguments, "offsets": NEAREST},
        **{"patch_shape": (64, 64, 64), "overlap": (0, 0, 0), "resolution_nm": (8.0, 8.0, 8.0)},
    )
    return LoadedModel(card, build(architecture, arguments).eval())


def refusal(model, patch):
    """The message with which a patch is refused; an empty text if it is not."""
    try:
        check_patch(model, patch, PredictOptions())
    except ConfigError as error:
        return str(error)
    return ""


def passes(network, patch):
    """True if one forward pass gives logits of this patch."""
    try:
        with torch.inference_mode():
            return tuple(network(torch.rand(1, 1, *patch)).shape) == (1, 3, *patch)
    except (RuntimeError, ValueError, IndexError, ModelError):
        return False


def test_every_architecture_states_its_rule_and_is_tested_here():
    """All registered networks state a rule."""
    assert {name for name, _ in SUBJECTS} == set(MODELS)
    assert all(states_rule(loaded(*subject).module) for subject in SUBJECTS)


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject[0])
def test_a_patch_is_refused_with_value_rule_and_remedy_or_works(subject):
    """Whatever the patch: it is refused and the named remedy fits, or one forward pass of it works."""
    model = loaded(*subject)
    rule = PatchRule.of(model.module)
    sides = [
        st.one_of(
            st.integers(1, 40),
            st.integers(1, 3).map(lambda k, m=m, r=r: k * m + r),
            st.integers(-1, 1).map(lambda d, n=n: max(1, n + d)),
        )
        for m, n, r in zip(rule.multiple, rule.minimum, (0, rule.remainders[-1], 0), strict=True)
    ]

    @settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(patch=st.tuples(*sides))
    def check(patch):
        while Vec(*patch).z * patch[1] * patch[2] > MOST:
            patch = tuple(max(1, side // 2) if side == max(patch) else side for side in patch)
        message = refusal(model, Vec(*patch))
        if not message:
            assert passes(model.module, patch), patch
            return
        found = re.fullmatch(
            r"inference.patch_shape is (\[.*?\]); \w+ \(model any\) with these arguments takes each side .*: the "
            r"nearest patch that fits is (\[.*?\])",
            message,
        )
        assert found, message
        assert found[1] == str(list(patch))
        assert rule.fits(json.loads(found[2]))

    check()
    assert passes(model.module, rule.nearest(rule.minimum))


@pytest.mark.parametrize("name", ["residual_unet", "connectomics_unet", "plain_unet", "plain_gamma", "gamma_net_2d"])
def test_networks_for_colour_state_the_channels_of_their_card(name):
    """A network with `in_channels: 3` takes images of three channels, and its card says so without the network."""
    arguments = named_arguments(name, "tiny" if name != "residual_unet" else "lee")
    model, patch = loaded(name, {**arguments, "in_channels": 3}), Vec(16, 64, 64)
    check_patch(model, patch, PredictOptions())
    assert model.card.image_channels == PatchRule.of(model.module).image_channels == 3
    with torch.inference_mode():
        assert model.module(torch.rand(PatchRule.of(model.module).image_shape(patch))).shape[2:] == patch
    with pytest.raises(ConfigError, match=r"takes images of 3 channels; its arguments say 1: write in_channels: 3"):
        PatchRule.of(model.module).check(patch, "patch_shape", name)


def test_an_augmentation_that_exchanges_unequal_sides_is_refused():
    """A patch whose sides differ cannot be transposed."""
    model = loaded("identity", {})
    check_patch(model, Vec(4, 8, 8), PredictOptions(augmentation="flips+transpose"))
    with pytest.raises(ConfigError, match=r"the patch is \[4, 8, 8\]; these sides must be equal"):
        check_patch(model, Vec(4, 8, 8), PredictOptions(augmentation="flips+permutations"))


def test_the_patch_that_a_refusal_names_may_be_turned():
    """The remedy for a patch that does not fit has equal sides where the augmentation exchanges them."""
    model = loaded("gamma_net_3d", named_arguments("gamma_net_3d", "tiny"))
    options = PredictOptions(augmentation="flips+permutations")
    patch = Vec(15, 30, 41)
    with pytest.raises(ConfigError, match="the nearest patch that fits is") as caught:
        check_patch(model, patch, options)
    check_patch(model, Vec(*json.loads(re.search(r"fits is (\[.*?\])", str(caught.value))[1])), options)

"""Packed layers, held to the ones that they stand for."""

import copy

import pytest
import torch
from torch import nn

from chatbot.generators.packed import Packed, can_pack, pack
from tests.checkpoints import bart, t5

pytestmark = pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1,), (5, 1), (3, 700)])
@torch.inference_mode()
def test_a_packed_layer_computes_what_the_layer_does(bias: bool, shape: tuple[int, ...]):
    linear, x = nn.Linear(48, 33, bias=bias), torch.randn(*shape, 48)
    assert torch.allclose(Packed(linear, 6)(x), linear(x), atol=1e-5)
    sliced = torch.randn(*shape, 96)[..., ::2]
    assert torch.allclose(Packed(linear, 6)(sliced), linear(sliced), atol=1e-5)


@pytest.mark.parametrize("made", [bart, t5])
@torch.inference_mode()
def test_a_packed_model_computes_what_the_model_does(made):
    model = made()[0].eval()
    ids, said = torch.randint(5, 60, (3, 40)), torch.tensor([[2, 11, 40]] * 3)
    packed = copy.deepcopy(model)
    pack(packed, 6)
    assert not [each for each in packed.modules() if type(each) is nn.Linear]
    expected, found = (each(input_ids=ids, decoder_input_ids=said).logits for each in (model, packed))
    assert torch.allclose(found, expected, atol=1e-4)
    assert packed.get_input_embeddings().weight.equal(model.get_input_embeddings().weight)


def test_layers_of_other_precisions_are_left_alone():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4).bfloat16())
    pack(model, 6)
    assert [type(each) for each in model] == [Packed, nn.Linear]

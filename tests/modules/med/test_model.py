"""MED: the three modes, folding, padding, precision, and what is tied."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from lavis_lite import registry
from lavis_lite.errors import ConfigError
from lavis_lite.modules.med.attention import MOST_QUERIES, KeyValue, attend, select
from lavis_lite.modules.med.cache import Cache
from lavis_lite.modules.med.model import Med, MedDecoder, tie

VOCAB, WIDTH, IMAGE_WIDTH = 50, 16, 12


def tower(**changes: object) -> Med:
    """A small MED whose biases, norms and positions matter."""
    arguments = {
        "width": WIDTH, "depth": 2, "num_heads": 2, "mlp_width": 24, "vocab_size": VOCAB,
        "encoder_width": IMAGE_WIDTH, "max_length": 20,
    }  # fmt: skip
    med = Med(**{**arguments, **changes})
    with torch.no_grad():
        for parameter in med.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return med.eval()


def ids_of(rows: int, length: int = 7) -> Tensor:
    return torch.randint(1, VOCAB, (rows, length))


def padded(ids: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor]:
    mask = (torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]).long()
    return ids * mask, mask


def repeat(kv: list[KeyValue], times: int) -> list[KeyValue]:
    return [KeyValue(*(x.repeat_interleave(times, 0) for x in pair)) for pair in kv]


@pytest.mark.parametrize("mode", ["multimodal", "decoder"])
def test_folding_the_texts_of_an_image_equals_repeating_the_image(mode: str) -> None:
    med, ids = tower(), ids_of(6)
    mask = padded(ids, [7, 3, 5, 7, 2, 6])[1]
    kv = med.project(torch.randn(2, 5, IMAGE_WIDTH))
    folded = med(ids, mask, mode=mode, image_kv=kv)
    repeated = med(ids, mask, mode=mode, image_kv=repeat(kv, 3))
    torch.testing.assert_close(folded, repeated, rtol=0, atol=2e-6)
    other = med(ids, mask, mode=mode, image_kv=[KeyValue(k.flip(0), v.flip(0)) for k, v in kv])
    assert (other - folded).abs().max() > 0.1


def test_folding_gives_the_same_gradients_as_repeating() -> None:
    med, ids, image = tower(), ids_of(6), torch.randn(2, 5, IMAGE_WIDTH, requires_grad=True)
    gradients = []
    for times, rows in ((1, 2), (3, 6)):
        kv = repeat(med.project(image), times)
        assert kv[0].key.shape[0] == rows
        loss = med(ids, mode="multimodal", image_kv=kv).square().mean()
        gradients.append(torch.autograd.grad(loss, image)[0])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


def test_selecting_rows_equals_projecting_those_images() -> None:
    med, image, index = tower(), torch.randn(3, 5, IMAGE_WIDTH), torch.tensor([2, 0, 2])
    chosen, projected = select(med.project(image), index), med.project(image[index])
    for ours, theirs in zip(chosen, projected, strict=True):
        torch.testing.assert_close(ours.key, theirs.key)
        torch.testing.assert_close(ours.value, theirs.value)


@pytest.mark.fault(54)
@pytest.mark.parametrize("mode", ["text", "multimodal", "decoder"])
def test_padding_changes_nothing_at_real_tokens(mode: str) -> None:
    med, lengths = tower(), [7, 3, 5]
    ids, mask = padded(ids_of(3), lengths)
    kv = None if mode == "text" else med.project(torch.randn(3, 5, IMAGE_WIDTH))
    together = med(ids, mask, mode=mode, image_kv=kv)
    for row, length in enumerate(lengths):
        own = kv and select(kv, torch.tensor([row]))
        alone = med(ids[row : row + 1, :length], mode=mode, image_kv=own)
        torch.testing.assert_close(together[row, :length], alone[0], rtol=0, atol=2e-6)


def test_masked_image_tokens_change_nothing() -> None:
    med, ids, image = tower(), ids_of(2), torch.randn(2, 5, IMAGE_WIDTH)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    masked = med(ids, mode="multimodal", image_kv=med.project(image), image_mask=mask)
    shorter = med(ids[:1], mode="multimodal", image_kv=med.project(image[:1, :3]))
    torch.testing.assert_close(masked[:1], shorter, rtol=0, atol=2e-6)


def test_a_full_mask_is_no_mask() -> None:
    med, ids = tower(), ids_of(2)
    assert torch.equal(med(ids, torch.ones_like(ids), mode="text"), med(ids, mode="text"))


def influence(med: Med, mode: str) -> Tensor:
    """Whether token t's state depends on token s, at [t, s]."""
    kv = None if mode == "text" else med.project(torch.randn(1, 5, IMAGE_WIDTH))
    ids = ids_of(1, 4)
    states = med(ids, mode=mode, image_kv=kv)
    changed = []
    for position in range(4):
        other = ids.clone()
        other[0, position] = (other[0, position] + 1) % VOCAB
        moved = med(other, mode=mode, image_kv=kv) - states
        changed.append((moved[0].abs().amax(-1) > 1e-6).long())
    return torch.stack(changed, dim=1)


def test_only_the_decoder_is_causal() -> None:
    med = tower()
    assert torch.equal(influence(med, "decoder"), torch.ones(4, 4).tril().long())
    assert torch.equal(influence(med, "text"), torch.ones(4, 4).long())
    assert torch.equal(influence(med, "multimodal"), torch.ones(4, 4).long())


def test_text_mode_ignores_cross_attention() -> None:
    med = tower()
    plain = tower(cross_attention=False, encoder_width=None)
    plain.load_state_dict({k: v for k, v in med.state_dict().items() if "crossatt" not in k})
    ids = ids_of(2)
    assert torch.equal(med(ids, mode="text"), plain(ids, mode="text"))


def test_a_mode_and_its_image_must_agree() -> None:
    med, ids = tower(), ids_of(1)
    with pytest.raises(AssertionError, match="do not agree"):
        med(ids, mode="multimodal")
    with pytest.raises(AssertionError, match="do not agree"):
        med(ids, mode="text", image_kv=med.project(torch.randn(1, 5, IMAGE_WIDTH)))


def test_padding_on_the_left_is_caught_in_the_decoder() -> None:
    med, ids = tower(), ids_of(1, 3)
    kv = med.project(torch.randn(1, 5, IMAGE_WIDTH))
    with pytest.raises(AssertionError):
        med(ids, torch.tensor([[0, 1, 1]]), mode="decoder", image_kv=kv)


def test_a_text_longer_than_the_tower_says_so() -> None:
    with pytest.raises(AssertionError, match="21 tokens, but the text tower holds 20"):
        tower()(ids_of(1, 21), mode="text")


@pytest.mark.parametrize("training", [False, True])
def test_bf16_autocast_stays_near_fp32(training: bool) -> None:
    med, ids, image = tower(dropout=0.0).train(training), ids_of(4), torch.randn(2, 5, IMAGE_WIDTH)
    ids, mask = padded(ids, [7, 4, 6, 2])
    exact = med(ids, mask, mode="multimodal", image_kv=med.project(image))
    with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(training):
        kv = med.project(image)
        states = med(ids, mask, mode="multimodal", image_kv=kv)
    assert kv[0].key.dtype == torch.bfloat16
    assert states.dtype == torch.float32  # the residual stream and the norms
    assert (states - exact).abs().max() < 0.1 * exact.abs().max()
    if training:
        states.square().mean().backward()
        assert all(p.grad.isfinite().all() for p in med.parameters() if p.grad is not None)


def test_keys_projected_in_fp32_serve_under_autocast() -> None:
    med, ids = tower(), ids_of(2)
    kv = med.project(torch.randn(2, 5, IMAGE_WIDTH))
    with torch.autocast("cpu", torch.bfloat16):
        assert med(ids, mode="multimodal", image_kv=kv).isfinite().all()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("mode", ["text", "multimodal", "decoder"])
def test_a_forward_compiles_into_one_graph(mode: str, training: bool) -> None:
    med, ids = tower(dropout=0.0).train(training), ids_of(2)
    ids, mask = padded(ids, [7, 5])
    kv = None if mode == "text" else med.project(torch.randn(2, 5, IMAGE_WIDTH))
    compiled = torch.compile(med, backend="eager", fullgraph=True)
    torch.testing.assert_close(
        compiled(ids, mask, mode=mode, image_kv=kv)[mask.bool()],
        med(ids, mask, mode=mode, image_kv=kv)[mask.bool()],
    )


def test_dropout_is_in_training_only() -> None:
    med, ids = tower(dropout=0.5), ids_of(2)
    assert torch.equal(med(ids, mode="text"), med(ids, mode="text"))
    assert not torch.equal(med.train()(ids, mode="text"), med(ids, mode="text"))


# ---- parameters: names, ties, fresh values


def decoder() -> MedDecoder:
    return MedDecoder(tower()).eval()


def test_parameter_names_are_those_of_the_published_checkpoints(golden: dict) -> None:
    ours = Med(width=64, depth=3, num_heads=4, mlp_width=128, vocab_size=30524, encoder_width=64)
    layout = golden["itm"]["layout"]
    published = {
        key.removeprefix("text_encoder."): shape
        for key, shape in layout.items()
        if key.startswith("text_encoder.") and not key.endswith("position_ids")
    }
    assert {key: list(value.shape) for key, value in ours.state_dict().items()} == published


def test_the_position_buffer_of_older_checkpoints_is_let_through() -> None:
    med = tower()
    state = {name: torch.ones_like(value) for name, value in med.state_dict().items()}
    med.load_state_dict(state | {"embeddings.position_ids": torch.arange(20)[None]}, strict=True)
    assert all(bool((value == 1).all()) for value in med.state_dict().values())
    with pytest.raises(RuntimeError, match="position_idz"):
        med.load_state_dict(state | {"embeddings.position_idz": torch.arange(20)[None]})


def test_the_head_shares_its_weights_with_the_words() -> None:
    model = decoder()
    for candidate in (model, copy.deepcopy(model)):
        head = candidate.cls.predictions
        assert head.decoder.weight is candidate.bert.embeddings.word_embeddings.weight
        assert head.decoder.bias is head.bias
    assert len(model.cls.state_dict()) == 7


def test_tying_at_base_depth_shares_196_tensors_and_leaves_120() -> None:
    encoder, model = tower(depth=12), MedDecoder(tower(depth=12))
    before = sum(p.numel() for p in [*encoder.parameters(), *model.parameters()])
    tie(encoder, model)
    theirs = {id(p) for p in model.parameters()}
    own = {name for name, p in encoder.named_parameters() if id(p) not in theirs}
    assert len(list(encoder.parameters())) == 316
    assert len(own) == 120
    assert all(".attention." in name for name in own)
    assert model.cls.predictions.decoder.weight is encoder.embeddings.word_embeddings.weight
    together = torch.nn.ModuleList([encoder, model])
    assert sum(p.numel() for p in together.parameters()) < 0.7 * before


def test_the_tied_names_are_those_that_the_published_code_ties(golden: dict) -> None:
    encoder, model = tower(depth=3), MedDecoder(tower(depth=3))
    tie(encoder, model)
    theirs = {id(p) for p in model.parameters()}
    tied = sorted(name for name, p in encoder.named_parameters() if id(p) in theirs)
    assert tied == sorted(golden["pretrain"]["tied"])


def test_fresh_weights_have_berts_spread_and_positions_their_own() -> None:
    torch.manual_seed(1)
    model = MedDecoder(
        Med(
            width=64, depth=1, num_heads=2, mlp_width=64, vocab_size=500, encoder_width=64,
            max_length=200, position_std=0.5,
        )
    )  # fmt: skip
    spread = {name: p.std().item() for name, p in model.named_parameters() if p.dim() > 1}
    assert spread.pop("bert.embeddings.position_embeddings.weight") == pytest.approx(0.5, rel=0.05)
    assert all(std == pytest.approx(0.02, rel=0.1) for std in spread.values())
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    assert all((bias == 0).all() for bias in biases)


def test_the_registered_builder_takes_its_arguments_from_a_config() -> None:
    spec = {"name": "med", "width": 8, "depth": 1, "num_heads": 2, "mlp_width": 8, "max_length": 9}
    med = registry.build("text_backbone", spec, vocab_size=VOCAB, encoder_width=12)
    assert isinstance(med, Med)
    assert med.width == 8
    assert registry.entry("text_backbone", "med").result is Med
    plain = registry.build("text_backbone", {**spec, "cross_attention": False}, vocab_size=VOCAB)
    assert not any("crossattention" in name for name, _ in plain.named_parameters())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_heads": 3}, "width 16 does not divide into 3 heads"),
        ({"encoder_width": None}, "needs encoder_width"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        tower(**changes)


# ---- layers that read the text alone, below those that look


def fusing(depth: int = 4, fusion_layer: int = 2) -> Med:
    torch.manual_seed(0)
    return tower(depth=depth, fusion_layer=fusion_layer)


def test_only_layers_from_the_fusion_layer_on_look_at_an_image() -> None:
    med = fusing()
    looking = [hasattr(layer, "crossattention") for layer in med.encoder]
    assert looking == [False, False, True, True]
    assert len(med.project(torch.randn(1, 3, IMAGE_WIDTH))) == 2


@torch.no_grad()
def test_a_text_alone_is_read_by_the_layers_below_and_may_go_on_from_there() -> None:
    med = fusing()
    ids, mask = torch.randint(0, 50, (2, 5)), torch.tensor([[1] * 5, [1, 1, 1, 0, 0]])
    alone = med(ids, mask, mode="text")
    lower = fusing(depth=2, fusion_layer=0)
    own = med.state_dict()
    lower.load_state_dict({k: own.get(k, v) for k, v in lower.state_dict().items()})
    assert alone.equal(lower(ids, mask, mode="text"))
    kv = med.project(torch.randn(2, 3, IMAGE_WIDTH))
    whole = med(ids, mask, mode="multimodal", image_kv=kv)
    rest = med(ids, mask, mode="multimodal", image_kv=kv, states=alone)
    torch.testing.assert_close(rest, whole, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_a_decoder_whose_upper_layers_look_writes_alike_with_and_without_a_cache() -> None:
    decoder = MedDecoder(fusing()).eval()
    kv = decoder.bert.project(torch.randn(2, 3, IMAGE_WIDTH))
    ids = torch.randint(0, 50, (2, 4))
    whole = decoder(ids, image_kv=kv)
    cache = Cache(4)
    steps = [decoder(ids[:, :2], image_kv=kv, cache=cache)]
    steps += [decoder(ids[:, n : n + 1], image_kv=kv, cache=cache) for n in (2, 3)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fusion_layer", [-1, 4, 5])
def test_a_fusion_layer_that_is_not_there_is_refused(fusion_layer: int) -> None:
    with pytest.raises(ConfigError, match=f"fusion_layer {fusion_layer} of 4 layers; .* 1 to 3"):
        fusing(fusion_layer=fusion_layer)


MOST = MOST_QUERIES[torch.bfloat16]


@pytest.mark.parametrize("num_queries", [1, MOST, MOST + 1])
def test_attention_in_bf16_is_that_in_fp32_up_to_rounding(num_queries: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, num_queries, 32, generator=generator).bfloat16()
    key, value = torch.randn(2, 2, 4, 50, 8, generator=generator).bfloat16()
    with torch.no_grad():
        found = attend(query, KeyValue(key, value), None, False, 0.0)
    whole = KeyValue(key.float(), value.float())
    expected = attend(query.float(), whole, None, False, 0.0)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("dtype", list(MOST_QUERIES))
def test_attention_weights_are_dropped_without_gradients_too(dtype: torch.dtype) -> None:
    """A momentum copy in training has no gradients, and drops."""
    query = torch.randn(1, 2, 8).to(dtype)
    key, value = torch.randn(2, 1, 1, 50, 8).to(dtype)
    with torch.no_grad():
        drawn = [attend(query, KeyValue(key, value), None, False, 0.5) for _ in range(2)]
    assert not torch.equal(*drawn)


def test_gradients_in_double_precision_are_double() -> None:
    med = tower().double()
    kv = med.project(torch.randn(2, 5, IMAGE_WIDTH, dtype=torch.double))
    query = torch.randn(2, 3, WIDTH, dtype=torch.double, requires_grad=True)
    torch.autograd.gradcheck(lambda q: attend(q, kv[0], None, False, 0.0), query)


@pytest.mark.parametrize("mode", ["text", "multimodal", "decoder"])
def test_states_that_are_wanted_are_those_of_the_whole_and_so_are_gradients(mode: str) -> None:
    med, ids, lengths = tower(), ids_of(4), [7, 3, 5, 6]
    mask, query_positions = padded(ids, lengths)[1], torch.tensor([[0, 6], [0, 2], [4, 4], [1, 0]])
    kv = None if mode == "text" else med.project(torch.randn(2, 5, IMAGE_WIDTH))
    whole = med(ids, mask, mode=mode, image_kv=kv)
    expected = whole[torch.arange(4)[:, None], query_positions]
    found = med(ids, mask, mode=mode, image_kv=kv, query_positions=query_positions)
    torch.testing.assert_close(found, expected)
    parameters = [p for name, p in med.named_parameters() if kv is not None or "cross" not in name]
    ours, theirs = (
        torch.autograd.grad(x.square().sum(), parameters, retain_graph=True)
        for x in (found, expected)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["text", "multimodal"])
def test_texts_of_one_row_that_do_not_see_each_other_are_read_as_if_alone(mode: str) -> None:
    med, first, second = tower(), ids_of(2, 3), ids_of(2, 5)
    kv = None if mode == "text" else med.project(torch.randn(2, 5, IMAGE_WIDTH))
    owner = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])
    positions = torch.tensor([0, 1, 2, 0, 1, 2, 3, 4]).expand(2, -1)
    mask = (owner[:, None] == owner).expand(2, -1, -1)
    ids = torch.cat([first, second], dim=1)
    states = med(ids, mask, mode=mode, image_kv=kv, positions=positions)
    torch.testing.assert_close(states[:, :3], med(first, mode=mode, image_kv=kv))
    torch.testing.assert_close(states[:, 3:], med(second, mode=mode, image_kv=kv))


@pytest.mark.parametrize("mode", ["text", "multimodal", "decoder"])
def test_a_tower_compiles_in_one_graph_for_texts_of_any_length(mode: str) -> None:
    torch.compiler.reset()
    med = tower()
    compiled = torch.compile(med, dynamic=True, fullgraph=True, backend="eager")
    kv = None if mode == "text" else med.project(torch.randn(2, 5, IMAGE_WIDTH))
    for lengths in ([7, 3, 5, 6], [4, 2, 4, 1]):
        ids = ids_of(4)[:, : max(lengths)]
        mask = padded(ids, lengths)[1]
        for learning in (True, False):
            with torch.set_grad_enabled(learning):
                found = compiled(ids, mask, mode=mode, image_kv=kv)
                expected = med(ids, mask, mode=mode, image_kv=kv)
            torch.testing.assert_close(found[mask.bool()], expected[mask.bool()])

"""What holds for every encoder, and the equations of Re4 and of facets."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from index.encoders import (
    ENCODERS,
    Encoder,
    EncoderArgumentError,
    History,
    Interests,
    ServedHistory,
    ServedInterests,
    UnknownEncoderError,
    build_encoder,
    read_arguments,
)
from index.encoders.cosine import CosineEncoder
from index.encoders.interest_readouts import FacetReadout
from index.encoders.score_terms import ScoreTermsEncoder
from index.encoders.single_interest import SasRecEncoder
from index.encoders.time_gaps import CODES
from index.encoders.transformer import TransformerEncoder
from index.retrieval.padding import pad_histories

ITEMS, DIM, INTERESTS = 30, 8, 3
GAP_VECTORS = "gaps.vectors"
HISTORIES = [[4], [1, 2, 3, 4, 5], [7, 7, 9], [30, 29], [5, 1, 4, 2, 3]]
SWITCHES: dict[str, dict[str, Any]] = {
    "re4, tanh head": {"head": "tanh"},
    "re4, recency": {"recency": True},
    "re4, cosine": {"score_temperature": 0.1},
    "mind, dynamic, cosine": {"dynamic": True, "score_temperature": 0.5},
    "comirec-sa, no biases": {"biases": False},
    "mind, dynamic": {"dynamic": True},
    "re4, item bias, learned temperature": {
        "item_bias": True,
        "learned_temperature": True,
        "score_temperature": 0.1,
    },
    "re4, gated": {"merge": "gated"},
    "transformer, partitioned": {"merge": "partitioned", "score_temperature": 0.1},
    "transformer, tokens": {"readout": "tokens"},
    "linear, several": {"interests": INTERESTS, "own_share": 0.5, "history_decay": 0.8},
    "transformer, tokens, heads, layers": {"readout": "tokens", "heads": 2, "layers": 3},
    "transformer, heads, layers": {"heads": 2, "layers": 2},
    "transformer, one interest": {"interests": 1},
    "transformer, one interest, layers": {"interests": 1, "layers": 2},
    "transformer, one facet": {"interests": 1, "single_readout": "facet"},
    "transformer, plain, cosine": {"gated": False, "score_temperature": 0.1},
    "transformer, times": {"time_gaps": True, "interests": 1},
    "transformer, times, gated, cosine": {
        "time_gaps": True,
        "merge": "gated",
        "item_bias": True,
        "score_temperature": 0.1,
    },
}
VARIANTS = [*ENCODERS, *SWITCHES]


@pytest.fixture(params=VARIANTS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return make(request.param)


def make(variant: str, seed: int = 0) -> Encoder:
    name = variant.partition(",")[0]
    values = {"dim": DIM, "interests": INTERESTS, "hidden": 12, "items": ITEMS}
    fields = ENCODERS[name].Arguments.model_fields
    arguments = {key: value for key, value in values.items() if key in fields}
    arguments |= SWITCHES.get(variant, {})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = build_encoder(name, arguments).eval()
        if "times" in variant:
            [vectors] = [w for name, w in encoder.named_parameters() if name.endswith(GAP_VECTORS)]
            torch.nn.init.normal_(vectors)  # which begin at 0, without effect
        if "recency" in variant:
            torch.nn.init.normal_(encoder.recency)  # which begins at 0, without effect
        return encoder


def table() -> Tensor:
    vectors = torch.randn(ITEMS + 1, DIM, generator=torch.Generator().manual_seed(1))
    vectors[0] = 0
    return vectors


def history(histories: list[list[int]], length: int = 5, vectors: Tensor | None = None) -> History:
    rows = torch.from_numpy(pad_histories(histories, length))
    vectors = (table() if vectors is None else vectors)[rows]
    return History(rows, vectors, rows != 0, gaps_of(rows))


def gaps_of(rows: Tensor) -> Tensor:
    """Some time after each item, always the same."""
    return rows * 7 % CODES


def served_history(histories: list[list[int]]) -> ServedHistory:
    rows = pad_histories(histories, 5)
    return ServedHistory(rows, table().numpy()[rows], rows != 0, rows * 7 % CODES)


def test_what_is_served_is_what_was_trained(encoder: Encoder) -> None:
    """Encoders may serve without torch, and one history otherwise than several."""
    together = encoder.serve(served_history(HISTORIES))
    alone = [encoder.serve(served_history([history])) for history in HISTORIES]
    trained = encode(encoder, HISTORIES)
    for served in (together, ServedInterests(*map(np.concatenate, zip(*alone, strict=True)))):
        assert_served(served, trained)


def assert_served(served: ServedInterests, trained: Interests) -> None:
    assert served.vectors.dtype == served.attention.dtype == np.float32
    np.testing.assert_allclose(served.vectors, trained.vectors.numpy(), atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(served.attention, trained.attention.numpy(), atol=1e-6)
    np.testing.assert_allclose(served.raw, trained.raw.numpy(), atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
def test_a_gpu_serves_what_the_cpu_does(encoder: Encoder) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU: a build for the CPU, or none is there")
    if not encoder.uses_gpu:
        pytest.skip("it serves without torch")
    given = served_history(HISTORIES)
    expected, served = encoder.serve(given), encoder.to("cuda").serve(given)
    np.testing.assert_allclose(served.vectors, expected.vectors, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(served.attention, expected.attention, atol=1e-5)


def test_what_is_served_without_torch_does_not_depend_on_the_batch(encoder: Encoder) -> None:
    """To the bit: the order of items whose scores are nearly equal would change with it."""
    if is_served_by_torch(encoder):
        pytest.skip("it serves with torch")
    histories = HISTORIES * 20
    together = encoder.serve(served_history(histories))
    for number, history in enumerate(histories):
        alone = encoder.serve(served_history([history]))
        np.testing.assert_array_equal(alone.vectors[0], together.vectors[number])
        np.testing.assert_array_equal(alone.attention[0], together.attention[number])


def is_served_by_torch(encoder: Encoder) -> bool:
    """Several histories, on a CPU."""
    while isinstance(encoder, CosineEncoder | ScoreTermsEncoder):  # which only wrap another
        encoder = encoder.encoder
    return isinstance(encoder, TransformerEncoder) or type(encoder).serve is Encoder.serve


def encode(encoder: Encoder, histories: list[list[int]], length: int = 5) -> Interests:
    with torch.inference_mode():
        return encoder(history(histories, length))


def tensors(interests: Interests) -> list[Tensor]:
    return [part for part in interests if part is not None]


def assert_close(given: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-6)


def test_cosine_scores_ignore_the_length_of_interests() -> None:
    plain, cosine = make("re4"), make("re4, cosine")
    cosine.load_state_dict({f"encoder.{name}": t for name, t in plain.state_dict().items()})
    expected, given = encode(plain, HISTORIES), encode(cosine, HISTORIES)
    lengths = expected.vectors.norm(dim=-1, keepdim=True)
    assert_close(given.vectors, expected.vectors / lengths / 0.1)
    assert torch.equal(given.raw, expected.raw)
    assert torch.equal(given.attention, expected.attention)


# --- every encoder ---


def test_shapes_and_types(encoder: Encoder) -> None:
    assert encoder.interests in (INTERESTS, 1)
    assert encoder.content == DIM
    interests = encode(encoder, HISTORIES, 7)
    assert interests.vectors.shape == (len(HISTORIES), encoder.interests, encoder.dim)
    assert interests.attention.shape == (len(HISTORIES), encoder.interests, 7)
    for part in tensors(interests):
        assert part.dtype == torch.float32
        assert part.isfinite().all()


def test_attention_sums_to_one_and_is_zero_at_padding(encoder: Encoder) -> None:
    attention = encode(encoder, HISTORIES).attention
    mask = history(HISTORIES).mask[:, None, :].expand_as(attention)
    assert_close(attention.sum(-1), torch.ones(attention.shape[:2]))
    assert (attention >= 0).all()
    assert (attention[~mask] == 0).all()


def test_more_padding_changes_nothing(encoder: Encoder) -> None:
    short, long = encode(encoder, HISTORIES, 5), encode(encoder, HISTORIES, 12)
    assert_close(long.vectors, short.vectors)
    assert_close(long.raw, short.raw)
    assert_close(long.attention[:, :, -5:], short.attention)
    assert (long.attention[:, :, :-5] == 0).all()


def test_a_history_gets_the_same_interests_alone_and_in_a_batch(encoder: Encoder) -> None:
    together = encode(encoder, HISTORIES)
    for index, alone in enumerate(HISTORIES):
        single = encode(encoder, [alone])
        assert_close(together.vectors[index], single.vectors[0])
        assert_close(together.attention[index], single.attention[0])


def test_encoding_is_deterministic_to_the_bit(encoder: Encoder) -> None:
    first, again = encode(encoder, HISTORIES), encode(encoder, HISTORIES)
    assert all(map(torch.equal, tensors(first), tensors(again)))


def test_the_seed_decides_the_weights(encoder: Encoder, request: pytest.FixtureRequest) -> None:
    variant = request.node.callspec.params["encoder"]
    same, different = make(variant), make(variant, seed=1)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name])
    assert not torch.equal(encode(different, HISTORIES).vectors, encode(encoder, HISTORIES).vectors)


def test_saved_and_loaded_weights_encode_equally_to_the_bit(
    encoder: Encoder, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    save_file(encoder.state_dict(), tmp_path / "weights")
    loaded = make(request.node.callspec.params["encoder"], seed=2)
    loaded.load_state_dict(load_file(tmp_path / "weights"))
    expected, given = encode(encoder, HISTORIES), encode(loaded, HISTORIES)
    assert all(map(torch.equal, tensors(given), tensors(expected)))


def test_every_weight_and_every_item_of_a_history_gets_gradient(encoder: Encoder) -> None:
    vectors = table().requires_grad_()
    interests = encoder(history(HISTORIES, vectors=vectors))
    weights = torch.randn(interests.vectors.shape, generator=torch.Generator().manual_seed(3))
    (interests.vectors * weights).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    assert vectors.grad is not None
    read = sorted({row for items in HISTORIES for row in items})
    assert vectors.grad.any(dim=1).nonzero().flatten().tolist() == read


def test_interests_after_each_item_are_those_of_the_prefix(encoder: Encoder) -> None:
    """sasrec's alone count positions from the newest item of the whole history."""
    given = history(HISTORIES)
    with torch.inference_mode():
        prefixes = encoder.prefix_interests(given, given.mask)
    assert prefixes.attention.shape == (*prefixes.vectors.shape[:2], 0)
    whole = [items[: end + 1] for items in HISTORIES for end in range(len(items))]
    assert prefixes.vectors.shape == (len(whole), encoder.interests, encoder.dim)
    if isinstance(encoder, SasRecEncoder):
        newest = [index for index, items in enumerate(whole) if items in HISTORIES]
        whole = [whole[index] for index in newest]
        assert_close(prefixes.vectors[newest], encode(encoder, whole).vectors)
    else:
        assert_close(prefixes.vectors, encode(encoder, whole).vectors)


def test_interests_after_an_item_depend_on_nothing_later(encoder: Encoder) -> None:
    given, other = history([[1, 2, 3, 4, 5]]), history([[1, 2, 3, 9, 8]])
    ends = torch.tensor([[True, True, True, False, False]])
    with torch.inference_mode():
        first, second = (encoder.prefix_interests(h, ends).vectors for h in (given, other))
    assert_close(first, second)
    assert first.shape == (3, encoder.interests, encoder.dim)


def test_interests_differ(encoder: Encoder) -> None:
    if encoder.interests == 1:
        pytest.skip("there is only one interest")
    vectors = encode(encoder, [[1, 2, 3, 4, 5, 6, 7, 8]], 8).vectors[0]
    assert all(not torch.equal(vectors[0], vector) for vector in vectors[1:])


@pytest.mark.parametrize(("length", "several"), [(1, 1), (3, 1), (4, 2), (7, 2), (8, 3), (12, 3)])
def test_mind_has_the_paper_s_number_of_interests(length: int, several: int) -> None:
    """max(1, min(K, log2 n)); the rest repeat the first and find nothing of their own."""
    vectors = encode(make("mind, dynamic"), [list(range(1, length + 1))], 12).vectors[0]
    assert len(vectors.unique(dim=0)) == several
    assert all(torch.equal(vectors[0], spare) for spare in vectors[several:])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_an_interest_of_the_linear_encoder_is_of_its_cluster(share: float) -> None:
    arguments = {"dim": 4, "interests": 2, "history_decay": 0.5, "own_share": share}
    encoder = build_encoder("linear", arguments)
    encoder.matrix.weight.data.copy_(torch.eye(4))
    encoder.centers.copy_(torch.eye(4)[:2])
    vectors = torch.eye(4) * torch.tensor([2.0, 3.0, 1.0, 1.0])
    rows = torch.tensor([[0, 1, 2, 1]])  # weights 1/4, 1/2, 1: the first padding
    given = History(rows, torch.cat([torch.zeros(1, 4), vectors])[rows], rows > 0)
    total = torch.tensor([2.5, 1.5, 0, 0])
    own = torch.tensor([[2.5, 0, 0, 0], [0, 1.5, 0, 0]])
    assert_close(encoder(given).vectors[0], (1 - share) * total + share * own)
    alone = History(rows[:, 3:], given.vectors[:, 3:], given.mask[:, 3:])
    assert_close(encoder(alone).vectors[0], torch.tensor([[2.0, 0, 0, 0]]).expand(2, 4))


def test_all_state_is_saved(encoder: Encoder) -> None:
    """A release is opened from its weights alone."""
    assert {*dict(encoder.named_buffers())} <= {*encoder.state_dict()}


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownEncoderError, match=r"no 'Re4'; choose one of .*re4"):
        build_encoder("Re4", {})


def test_every_argument_is_described_and_shared_ones_are_declared_once() -> None:
    """Descriptions are the trainer's help; only defaults may differ between encoders."""
    declared: dict[str, tuple[Any, str | None]] = {}
    for encoder in ENCODERS.values():
        for name, field in encoder.Arguments.model_fields.items():
            assert field.description
            same = (field.annotation, field.description)
            assert declared.setdefault(name, same) == same


def test_former_names_of_arguments_are_read() -> None:
    """Releases made before an argument was renamed must load."""
    former = read_arguments("re4", {"dim": 8, "cosine": 0.1})
    assert former == read_arguments("re4", {"dim": 8, "score_temperature": 0.1})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"colour": 3}, "colour: Extra inputs are not permitted"),
        ({"dim": -8}, "dim: Input should be greater than or equal to 1"),
        ({"heads": 3}, "heads = 3 does not divide dim = 64"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(EncoderArgumentError, match=message):
        build_encoder("sasrec", arguments)


# --- Re4 ---


@pytest.mark.parametrize("variant", ["re4", "re4, tanh head"])
def test_re4_ignores_the_order_of_a_history(variant: str) -> None:
    encoder = make(variant)
    expected = encode(encoder, [[1, 2, 3, 4, 5]])
    order = [3, 0, 4, 1, 2]
    given = encode(encoder, [[[1, 2, 3, 4, 5][position] for position in order]])
    assert_close(given.vectors, expected.vectors)
    assert_close(given.attention, expected.attention[:, :, order])


def test_recency_weighs_the_positions_of_a_history() -> None:
    """As if the logits were b_kt alone: equal items differ only in their position."""
    encoder = make("re4, recency")
    bias = encoder.recency
    assert isinstance(bias, Tensor)
    attention = encode(encoder, [[7, 7, 7]]).attention[0]
    assert_close(attention[:, -3:], bias.detach()[-3:].T.softmax(dim=1))


def test_re4_computes_its_equations() -> None:
    """Eq. 1 and 2, item by item."""
    encoder = make("re4")
    weights = {name: tensor.numpy() for name, tensor in encoder.state_dict().items()}
    given = encode(encoder, HISTORIES)
    for index, items in enumerate(HISTORIES):
        x = table().numpy()[items]
        for k in range(INTERESTS):
            logits = [
                weights["score.weight"][k] @ np.tanh(weights["project.weight"] @ x_j) for x_j in x
            ]
            shares = np.exp(logits) / np.exp(logits).sum()
            z = sum(a * (weights["value.weight"] @ x_j) for a, x_j in zip(shares, x, strict=True))
            np.testing.assert_allclose(given.attention[index, k, -len(x) :], shares, rtol=1e-5)
            np.testing.assert_allclose(given.vectors[index, k], z, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variant", ["transformer", "transformer, one facet"])
def test_facets_compute_their_equation(variant: str) -> None:
    """z_k = W_k [h_t; GELU(V [h_t; h_{t-1}; h_{t-2}])], with 0 for a state before the first."""
    encoder = make(variant)
    assert isinstance(encoder, TransformerEncoder)
    assert isinstance(encoder.readout, FacetReadout)
    weights = {name: tensor.double() for name, tensor in encoder.readout.state_dict().items()}
    erf = np.vectorize(math.erf)
    given = encode(encoder, HISTORIES).vectors.numpy()
    for index, items in enumerate(HISTORIES):
        seen = history([items], len(items))
        states = encoder._states(seen, None)[0].detach().double().numpy()
        centred = states - states.mean(axis=1, keepdims=True)
        h = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
        h = h * weights["norm.weight"].numpy() + weights["norm.bias"].numpy()
        newest = [h[-n] if n <= len(h) else np.zeros(DIM) for n in (1, 2, 3)]
        mixed = weights["recent.weight"].numpy() @ np.concatenate(newest)
        mixed += weights["recent.bias"].numpy()
        gelu = mixed * (1 + erf(mixed / math.sqrt(2))) / 2
        facets = weights["facets.weight"].numpy() @ np.concatenate([newest[0], gelu])
        np.testing.assert_allclose(
            given[index], facets.reshape(encoder.interests, DIM), rtol=1e-4, atol=1e-5
        )


def test_re4_without_a_head_searches_with_the_raw_interests() -> None:
    plain, headed = encode(make("re4"), HISTORIES), encode(make("re4, tanh head"), HISTORIES)
    assert torch.equal(plain.vectors, plain.raw)
    assert not torch.equal(headed.vectors, headed.raw)
    assert (headed.vectors.abs() <= 1).all()

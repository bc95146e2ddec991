"""Evidence adds up along the tokens and over the sites, and follows the rows."""

import itertools

import torch

from lorary.routing.evidence import Evidence

VALUES = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]], dtype=torch.bool)


def naive(row, t):
    seen = VALUES[row, : t + 1][MASK[row, : t + 1]]
    return seen.mean(0) if len(seen) else torch.zeros(3)


def test_the_mean_along_the_tokens_is_the_same_in_one_call_or_many():
    expected = torch.stack([torch.stack([naive(row, t) for t in range(6)]) for row in range(2)])
    torch.testing.assert_close(Evidence().along_tokens("q", VALUES, MASK), expected)
    for cuts in ((0, 3, 6), (0, 1, 2, 3, 4, 5, 6)):
        evidence = Evidence()
        assert evidence.is_empty
        found = []
        for start, end in itertools.pairwise(cuts):
            evidence.along_tokens("other", 100 * VALUES[:, start:end], MASK[:, start:end])
            found.append(evidence.along_tokens("q", VALUES[:, start:end], MASK[:, start:end]))
        torch.testing.assert_close(torch.cat(found, 1), expected)
        assert not evidence.is_empty


def test_the_first_token_can_be_left_out_however_the_calls_are_cut():
    later = MASK & (MASK.cumsum(1) > 1)
    expected = Evidence().along_tokens("q", VALUES, later)
    for cuts in ((0, 6), (0, 1, 6), (0, 3, 6), (0, 1, 2, 3, 4, 5, 6)):
        evidence = Evidence()
        found = [
            evidence.along_tokens("q", VALUES[:, start:end], MASK[:, start:end], skip_first=True)
            for start, end in itertools.pairwise(cuts)
        ]
        torch.testing.assert_close(torch.cat(found, 1), expected)


def fading(row, t, half_life):
    seen = VALUES[row, : t + 1][MASK[row, : t + 1]]
    weights = 0.5 ** (torch.arange(len(seen)).flip(0) / half_life)
    return weights @ seen / weights.sum() if len(seen) else torch.zeros(3)


def test_a_second_mean_fades_however_the_calls_are_cut():
    expected = torch.stack(
        [torch.stack([0.75 * naive(row, t) + 0.25 * fading(row, t, 1.5) for t in range(6)]) for row in range(2)]
    )
    for cuts in ((0, 6), (0, 1, 6), (0, 3, 6), (0, 1, 2, 3, 4, 5, 6)):
        evidence = Evidence()
        found = [
            evidence.along_tokens("q", VALUES[:, start:end], MASK[:, start:end], recent=0.25, half_life=1.5)
            for start, end in itertools.pairwise(cuts)
        ]
        torch.testing.assert_close(torch.cat(found, 1), expected)


def test_a_long_text_fades_as_a_short_one_and_loses_nothing():
    values = torch.randn(1, 400, 3, generator=torch.Generator().manual_seed(1))
    whole = Evidence().along_tokens("q", values, None, recent=1.0, half_life=0.5)
    weights = 0.5 ** (torch.arange(400, dtype=torch.float64) / 0.5)  # of the token itself, the one before, ...
    for t in (0, 63, 64, 65, 399):
        expected = weights[: t + 1].flip(0) @ values[0, : t + 1].double() / weights[: t + 1].sum()
        torch.testing.assert_close(whole[0, t], expected.float(), atol=1e-5, rtol=1e-5)


def test_rows_are_selected_and_repeated():
    later = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(2))
    rows = torch.tensor([1, 1, 0]).repeat_interleave(2)
    evidence = Evidence()
    evidence.along_tokens("q", VALUES, MASK, recent=0.5)
    evidence.select_rows(torch.tensor([1, 1, 0]))
    evidence.repeat_rows(2)
    found = evidence.along_tokens("q", later, None, recent=0.5)
    whole = Evidence().along_tokens(
        "q", torch.cat([VALUES[rows], later], 1), torch.cat([MASK[rows], torch.ones(6, 2, dtype=torch.bool)], 1),
        recent=0.5,
    )  # fmt: skip
    torch.testing.assert_close(found, whole[:, -2:])
    evidence.clear()
    assert evidence.is_empty
    torch.testing.assert_close(evidence.along_tokens("q", later, None), Evidence().along_tokens("q", later, None))


def test_it_is_known_from_where_on_there_is_evidence():
    evidence = Evidence()
    evidence.along_tokens("q", VALUES[:, :4], MASK[:, :4], skip_first=True)
    assert evidence.is_missing[..., 0].tolist() == [[1, 0, 0, 0], [1, 1, 1, 0]]
    evidence.along_tokens("q", VALUES[:, 4:], MASK[:, 4:], skip_first=True)
    assert evidence.is_missing[..., 0].tolist() == [[0, 0], [0, 0]]


def test_the_mean_over_the_sites_begins_anew_with_every_call():
    evidence = Evidence()
    one, two = VALUES, 3 * VALUES
    assert torch.equal(evidence.up_sites(one), one)
    torch.testing.assert_close(evidence.up_sites(two, weight=3.0), 6 * VALUES)
    evidence.start_call()
    assert torch.equal(evidence.up_sites(two), two)
    assert torch.equal(VALUES, one)


def test_what_went_up_the_sites_is_not_changed_afterwards():
    evidence = Evidence()
    first = evidence.up_sites(VALUES)
    kept = first.clone()
    evidence.up_sites(VALUES + 1)
    assert torch.equal(first, kept)


def test_sites_that_speak_at_once_are_sites_that_speak_one_after_another():
    apart, at_once = Evidence(), Evidence()
    values = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(1))  # (B, T, G, E)
    options = {"skip_first": True, "recent": 0.3, "half_life": 2.0}
    for start, end in ((0, 3), (3, 4), (4, 6)):
        part, mask = values[:, start:end], MASK[:, start:end]
        for evidence in (apart, at_once):
            evidence.start_call()
            evidence.up_sites(evidence.along_tokens("below", part[:, :, 0], mask, **options), weight=2)
        expected = [apart.along_tokens(name, part[:, :, i], mask, **options) for i, name in enumerate("qkv")]
        risen = torch.stack([apart.up_sites(mean, weight=2) for mean in expected], 2)
        # One call of three is made apart: those before and after it go on all the same.
        if start == 3:
            means = [at_once.along_tokens(name, part[:, :, i], mask, **options) for i, name in enumerate("qkv")]
            found = torch.stack(means, 2)
        else:
            found = at_once.along_tokens_of("qkv", part.flatten(2), mask, **options).unflatten(-1, (3, 4))
        torch.testing.assert_close(found, torch.stack(expected, 2))
        torch.testing.assert_close(at_once.up_sites_of(found, weight=2), risen)
        torch.testing.assert_close(at_once.risen, apart.risen)

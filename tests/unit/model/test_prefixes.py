"""Which tokens rows share: where branches begin, what is asked on them, what isn't worth a call."""

from lorary.model.decoding.prefixes import grow
from lorary.model.text.tokens import Encoded


def shape(branches):
    """Tokens of each branch, what is asked there as (column, row, token), and its branches."""
    return sorted(
        (tuple(b.tokens), sorted(map(tuple, b.asks)), shape(b.branches)) for b in branches
    )  # fmt: skip


def test_options_follow_their_prompt_and_are_asked_where_they_are_foreseen():
    rows = [Encoded((5, 6, 7), (1, 2)), Encoded((9, 9), (3,)), Encoded((5, 6, 7), (4,)), Encoded((5, 6, 7), (1, 3, 8))]
    leaves = [((1,), [(0, 0, 2)], []), ((1, 3), [(0, 3, 3), (1, 3, 8)], [])]
    assert shape(grow(rows, dict.fromkeys(range(4)))) == [
        ((5, 6, 7), [(2, 0, 1), (2, 2, 4), (2, 3, 1)], leaves)  # row 2 has one token, foreseen by the prompt
    ]


def test_a_prefix_of_many_questions_is_read_before_each_of_them():
    prefix, first, second = tuple(range(10, 30)), (1, 2, 3, 4), (6, 7, 8, 9)
    rows = [Encoded(prefix + question, (token,)) for question in (first, second) for token in (40, 41)]
    assert shape(grow(rows, dict.fromkeys(range(4)))) == [
        (prefix, [], [(first, [(3, 0, 40), (3, 1, 41)], []), (second, [(3, 2, 40), (3, 3, 41)], [])])
    ]


def test_a_short_beginning_of_many_is_not_worth_a_call_but_their_questions_are():
    questions = [(1, *range(20 * n, 20 * n + 19)) for n in range(1, 4)]
    rows = [Encoded(question, (token, 7)) for question in questions for token in (3, 4)]
    roots = grow(rows, dict.fromkeys(range(6)))
    assert sorted(tuple(root.tokens) for root in roots) == questions
    assert [sorted(set(root.rows)) for root in sorted(roots, key=lambda root: root.row)] == [[0, 1], [2, 3], [4, 5]]


def test_only_rows_of_one_kind_share_and_the_rest_hang_on_no_branch():
    rows = [Encoded((5, 6, 7), (n,)) for n in range(4)] + [Encoded((8, 8), (1,))]
    assert shape(grow(rows, {0: "a", 1: "b", 2: "a", 4: "a"})) == [((5, 6, 7), [(2, 0, 0), (2, 2, 2)], [])]
    assert grow(rows, {0: "a", 1: "b"}) == grow([], {}) == []


def test_prompts_that_go_on_where_others_end_share_what_they_have_in_common():
    rows = [Encoded((1, 2), (3, 4)), Encoded((1, 2, 3), (5,)), Encoded((1, 2, 3, 4), (6,))]
    (root,) = grow(rows, dict.fromkeys(range(3)))
    assert (tuple(root.tokens), sorted(set(root.rows))) == ((1, 2), [0, 1, 2])


def test_beginnings_within_each_other_make_few_levels():
    rows = [Encoded((1,) * n, (2,)) for n in range(1, 300)]
    depth, branches = 0, grow(rows, dict.fromkeys(range(len(rows))))
    while branches:
        depth, branches = depth + 1, [inner for branch in branches for inner in branch.branches]
    assert 0 < depth < 7

"""A dict of a bounded size."""

from p2pd.app.bounded import Bounded


def test_what_was_set_longest_ago_makes_room() -> None:
    known: Bounded[str, int] = Bounded(2)
    known["a"], known["b"], known["a"], known["c"] = 1, 2, 3, 4
    assert dict(known) == {"a": 3, "c": 4}
    del known["a"]
    assert list(known.items()) == [("c", 4)]

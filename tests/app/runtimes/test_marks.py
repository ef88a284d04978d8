"""Our block in somebody else's file: it goes in and comes out without a trace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.app.runtimes.marks import Made, append, insert, lines_of, strip
from p2pd.model.errors import ConfigError

LINES = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=8)
TEXTS = st.builds(
    lambda lines, end: "\n".join(lines) + end, st.lists(LINES, max_size=6), st.sampled_from(["", "\n"])
)
BLOCKS = st.lists(LINES.filter(lambda line: not line.startswith("# ")), max_size=3)


@given(TEXTS, BLOCKS, st.data())
def test_what_goes_in_comes_out_and_leaves_every_byte(
    text: str, block: list[str], data: st.DataObject
) -> None:
    lines = lines_of(text)
    at = data.draw(st.integers(0, len(lines)))
    replaces = data.draw(st.integers(0, min(2, len(lines) - at)))
    made = Made(data.draw(st.booleans()), data.draw(st.integers(0, 9)))
    made = made if made.file else Made()
    inserted = insert(lines, at, block, replaces=replaces, made=made)
    assert strip(inserted, "x") == (text, made)
    assert strip(text, "x") == (text, None)


@given(TEXTS, TEXTS)
def test_what_others_wrote_after_it_stays(text: str, more: str) -> None:
    rest, _ = strip(append(text, ["a = 1"]) + more, "x")
    assert rest.startswith(text)
    assert rest.endswith(more)


def test_the_block_says_what_it_is() -> None:
    assert append("a = 1", ["b = 2"], made=Made()) == (
        "a = 1\n"
        '# >>> p2pd: made by "p2pd runtime install", taken out by "p2pd runtime remove"'
        " (no line break before)\n"
        "b = 2\n"
        "# <<< p2pd\n"
    )
    assert "(made: file, 2 directories)\n" in append("", [], made=Made(True, 2))
    assert "(made: file, 1 directory)\n" in append("", [], made=Made(True, 1))
    assert "(made: file)\n" in append("", [], made=Made(True))


@pytest.mark.parametrize("damage", [lambda text: text[:-2], lambda text: text.replace("remove", "move")])
def test_a_damaged_block_is_not_guessed_at(damage: object) -> None:
    assert callable(damage)
    text = damage(append("", ["b = 2"], made=Made(True)))
    if "# <<< p2pd" in text:
        assert strip(text, "x") == (text, None)  # not ours any more
        return
    with pytest.raises(ConfigError, match="/f: p2pd's block is damaged"):
        strip(text, "/f")

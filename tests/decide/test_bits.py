from hypothesis import given
from hypothesis import strategies as st

from p2pd.decide.bits import bits_to_bytes, bytes_to_bits, iter_bits, mask_of


def test_a_mask_is_the_run() -> None:
    assert mask_of(range(2, 5)) == 0b11100
    assert mask_of(range(5, 5)) == 0


@given(st.sets(st.integers(0, 300)))
def test_members_come_back_ascending(members: set[int]) -> None:
    assert list(iter_bits(sum(1 << member for member in members))) == sorted(members)


@given(st.integers(1, 300), st.data())
def test_the_wire_form_is_little_endian_and_exact(count: int, data: st.DataObject) -> None:
    bits = data.draw(st.integers(0, (1 << count) - 1))
    field = bits_to_bytes(bits, count)
    assert len(field) == -(-count // 8)
    assert bytes_to_bits(field, count) == bits
    assert field[0] & 1 == bits & 1


def test_bits_past_the_count_are_dropped() -> None:
    assert bytes_to_bits(b"\xff\xff", 3) == 0b111
    assert bytes_to_bits(b"", 3) == 0

"""What is remembered of the log."""

from __future__ import annotations

from p2pd.app.recent import Recent


def test_the_grave_ones_the_newest_first() -> None:
    now = [0.0]
    recent = Recent(lambda: now[0])
    for number in range(100):
        now[0] = float(number)
        line = {"event": f"e{number}", "level": "warning" if number % 2 else "info", "digest": "d" * 1000}
        assert recent(None, "msg", line) is line
    kept = recent.notices(50)
    assert [notice.event for notice in kept[:2]] == ["e99", "e97"]
    assert len(kept) == 20
    assert kept[0].at == 99.0
    assert kept[0].detail.startswith("digest=ddd")
    assert len(kept[0].detail) <= 400
    assert len(recent.notices()) == 5

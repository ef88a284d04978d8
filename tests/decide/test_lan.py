from p2pd.decide.lan import LanTrust


def test_patience_begins_with_the_first_thing_owed() -> None:
    lan = LanTrust(0.0)
    assert lan.deadline == float("inf")
    lan.owes(True, 100.0)
    lan.owes(True, 103.0)
    assert lan.deadline == 105.0
    lan.brought(104.0)
    assert lan.deadline == 109.0
    lan.owes(False, 104.0)
    assert lan.deadline == float("inf")


def test_patience_halves_with_each_stall_and_comes_back_with_a_stripe() -> None:
    lan = LanTrust(0.0)
    lan.owes(True, 0.0)
    waits = []
    for _ in range(5):
        lan.stalled([], 0.0)
        waits.append(lan.deadline)
    assert waits == [2.5, 1.25, 0.625, 0.6, 0.6]
    lan.brought(0.0)
    assert lan.deadline == 5.0


def test_patience_begins_anew_with_a_connection_but_not_for_ever() -> None:
    lan = LanTrust(0.0)
    lan.owes(True, 10.0)
    lan.connected(12.0)
    assert lan.deadline == 17.0
    for now in (14.0, 16.0, 18.0):
        lan.connected(now)
    assert lan.deadline == 20.0
    lan.stalled([], 20.0)
    lan.connected(21.0)
    assert lan.deadline == 22.5, "where nothing came once, they may come and go"
    lan.brought(22.0)
    lan.connected(21.0)
    assert lan.deadline == 27.0


def test_who_owes_is_muted_for_longer_and_longer() -> None:
    lan = LanTrust(0.0)
    lengths = []
    for _ in range(5):
        lan.stalled(["a"], 0.0)
        lengths.append(lan.heard_at)
        assert "a" in lan.muted
        assert lan.unmute(lan.heard_at - 0.1) == []
        assert lan.unmute(lan.heard_at) == ["a"]
    assert lengths == [20, 40, 80, 160, 160]
    assert lan.heard_at == float("inf")


def test_a_peer_that_left_is_forgotten() -> None:
    lan = LanTrust(0.0)
    lan.stalled(["a", "b"], 0.0)
    lan.forget("a")
    lan.forget("never seen")
    assert "a" not in lan.muted
    assert "b" in lan.muted


def test_a_lan_that_never_works_is_tried_for_ever() -> None:
    lan, now = LanTrust(0.0), 0.0
    for _ in range(2000):
        lan.owes(True, now)
        lan.stalled(["a"], now)
        assert now < lan.deadline < now + 5.0
        assert lan.heard_at <= now + 160.0
        now += 160.0
        assert lan.unmute(now) == ["a"]

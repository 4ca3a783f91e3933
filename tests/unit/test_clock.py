from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core import wire
from edge_agent.core.clock import TOLERANCE_MS, Clock

BUILT = 1_790_000_000_000
RIGHT = BUILT + 30 * 86_400_000
IN_1970, IN_2050 = 60_000, 2_524_608_000_000
NONCE = b"nonce..1"
BOOT = b"boot"


def clock(system_ms=IN_1970, floor_ms=BUILT, mono=5.0):
    return Clock(mono, system_ms, floor_ms, BOOT)


def told(clock, mono, time_ms, took=0.4):
    clock.ask(mono - took, NONCE)
    return clock.told(mono, wire.TimeTold(NONCE, time_ms))


def test_nobody_has_said_what_time_it_is():
    one = clock()
    assert not one.trusted
    assert one.wall_ms(5.0) == BUILT  # never before the floor
    assert one.wall_ms(65.0) == BUILT + 60_000
    assert one.trusted_ms(5.0) is None
    assert one.dates_ms(5.0) is None


def test_the_hub_says_it():
    one = clock()
    assert told(one, 10.0, RIGHT, took=0.4)
    assert one.trusted
    assert one.wall_ms(10.0) == RIGHT + 200
    assert one.dates_ms(11.0) == RIGHT + 1200


def test_an_answer_to_another_question_sets_nothing():
    one = clock()
    one.ask(9.0, NONCE)
    assert not one.told(9.1, wire.TimeTold(b"nonce..0", RIGHT))
    assert not one.told(40.0, wire.TimeTold(NONCE, RIGHT))  # too long on the way
    assert told(one, 50.0, RIGHT)
    assert not one.told(50.2, wire.TimeTold(NONCE, RIGHT + 9_000))  # the same answer again
    assert not clock().told(1.0, wire.TimeTold(b"", RIGHT))  # nobody asked


def test_the_hub_may_not_be_before_the_floor():
    one = clock(floor_ms=RIGHT)
    assert not told(one, 10.0, BUILT)
    assert not one.trusted
    assert one.contradicted
    assert told(one, 20.0, RIGHT + 5)
    assert not one.contradicted


def test_a_floor_that_hub_and_system_contradict_together_was_wrong():
    one = clock(system_ms=RIGHT, floor_ms=IN_2050)
    one.look(6.0, RIGHT, synchronised=True)
    assert not one.trusted
    assert told(one, 10.0, RIGHT + 4000)
    assert one.trusted
    assert not one.contradicted
    assert one.floor_ms < IN_2050


def test_a_synchronised_system_is_believed_until_the_hub_speaks():
    one = clock(system_ms=RIGHT)
    assert one.look(5.0, RIGHT, synchronised=True)
    assert one.source == "system"
    assert one.dates_ms(6.0) == RIGHT + 1000
    assert not one.look(15.0, RIGHT + 10_000, synchronised=True)
    assert told(one, 20.0, RIGHT + 15_000)
    assert one.source == "hub"


def test_a_spoofed_system_shuts_nobody_out():
    one = clock(system_ms=IN_2050)
    one.look(5.0, IN_2050, synchronised=True)
    assert one.dates_ms(5.0) == IN_2050
    assert one.doubt()  # the broker's certificate has run out by then
    assert one.dates_ms(5.0) is None
    assert told(one, 8.0, RIGHT)
    assert one.dates_ms(8.0) == RIGHT + 200
    assert one.contradicted
    assert not one.doubt()  # by the hub's word: then it has run out


def test_a_system_before_the_floor_is_not_believed():
    one = clock()
    one.look(5.0, IN_1970, synchronised=True)
    assert not one.trusted
    assert one.contradicted


@given(st.lists(st.tuples(st.floats(0, 1000), st.integers(0, IN_2050), st.booleans()), max_size=10))
def test_once_the_hub_has_spoken_the_systems_clock_may_jump(looks):
    one = clock()
    assert told(one, 10.0, RIGHT)
    for mono, system_ms, synchronised in looks:
        one.look(10.0 + mono, system_ms, synchronised)
        assert abs(one.wall_ms(10.0 + mono) - (RIGHT + 200 + mono * 1000)) <= 1
        assert one.contradicted == (synchronised and abs(system_ms - one.wall_ms(10.0 + mono)) > TOLERANCE_MS)


def test_an_earlier_process_of_the_same_boot_knew_it():
    one, two = clock(), clock(mono=100.0)
    assert told(one, 10.0, RIGHT)
    two.resume(one.offset_ms)
    assert two.trusted
    assert two.wall_ms(100.0) == RIGHT + 90_200


def message(one, mono):
    made = one.wall_ms(mono)
    body = wire.CallEnded(b"c" * 8, "cancelled", 0, made - 7_000)
    return wire.Message(body, b"c" * 16, seq=1, sent_at_ms=made, stamp=one.stamp(mono))


def test_a_record_made_before_the_time_was_known_is_sent_with_the_right_one():
    one = clock()
    early = message(one, 20.0)
    told(one, 100.0, RIGHT, took=0.0)
    sent = one.for_sending(early, 110.0)
    assert sent.body.ended_at_ms == RIGHT - 80_000 - 7_000
    assert sent.body.answered_at_ms == 0
    assert sent.sent_at_ms == RIGHT + 10_000
    assert sent.stamp == wire.Stamp(BOOT, 20_000, clock_trusted=True)
    assert wire.decode(wire.encode(sent)) == sent


def test_one_of_an_earlier_boot_says_that_nobody_knows():
    early = message(clock(), 20.0)
    later = Clock(3.0, IN_1970, BUILT, b"next")
    told(later, 10.0, RIGHT)
    sent = later.for_sending(early, 11.0)
    assert sent.body == early.body
    assert sent.stamp == wire.Stamp(BOOT, 20_000, clock_trusted=False, same_boot=False)


def test_a_trusted_record_stays_as_it_is_over_boots():
    one = clock()
    told(one, 10.0, RIGHT)
    early = message(one, 20.0)
    later = Clock(3.0, IN_1970, BUILT, b"next")
    assert later.for_sending(early, 4.0).body == early.body
    assert later.for_sending(early, 4.0).stamp == early.stamp

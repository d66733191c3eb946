from gateway.delivery import journal
from gateway.delivery.journal import Journal, Sent

A, B = ("a", "1.2"), ("b", "1.2")


def test_batches_of_a_study_add_up_from_the_first_to_the_last() -> None:
    book = Journal()
    book.note("a", {"1.2": Sent(10.0, 11.0, 3, 300)})
    book.note("a", {"1.2": Sent(10.5, 14.0, 2, 200), "1.3": Sent(10.5, 14.0, 1, 100)})
    taken = book.take(100.0)
    assert (taken[A].instances, taken[A].size_bytes, taken[A].seconds) == (5, 500, 4.0)
    assert (taken["a", "1.3"].instances, taken["a", "1.3"].seconds) == (1, 3.5)


def test_a_study_is_taken_once_it_is_quiet_and_for_each_destination_alone() -> None:
    book = Journal()
    book.note("a", {"1.2": Sent(10.0, 11.0, 1, 100)})
    book.note("b", {"1.2": Sent(10.0, 13.0, 1, 100)})
    assert book.take(11.0 + journal.QUIET_S - 0.1) == {}
    assert set(book.take(11.0 + journal.QUIET_S)) == {A}
    assert set(book.take(13.0 + journal.QUIET_S)) == {B}
    assert book.take(1e9) == {}


def test_what_is_put_back_is_looked_at_later_and_later_but_each_minute() -> None:
    book, now, pauses = Journal(), 100.0, []
    book.note("a", {"1.2": Sent(10.0, 11.0, 1, 100)})
    for _ in range(8):
        (sent,) = book.take(now).values()
        book.put_back(A, sent, now)
        pauses.append(sent.pause_s)
        assert book.take(now + sent.pause_s - 0.1) == {}
        now += sent.pause_s
    assert pauses == sorted(pauses)
    assert pauses[-1] == journal.LONGEST_PAUSE_S


def test_what_came_while_a_study_was_looked_at_is_added_to_it() -> None:
    book = Journal()
    book.note("a", {"1.2": Sent(10.0, 11.0, 1, 100)})
    (sent,) = book.take(100.0).values()
    book.note("a", {"1.2": Sent(100.5, 101.0, 2, 200)})
    book.put_back(A, sent, 101.0)
    (whole,) = book.take(1000.0).values()
    assert (whole.instances, whole.size_bytes, whole.began_at) == (3, 300, 10.0)


def test_however_many_studies_are_under_way_the_journal_stays_bounded() -> None:
    book = Journal()
    for number in range(journal.MAX_STUDIES + 5):
        book.note("a", {f"1.{number}": Sent(1.0, 1.0, 1, 1)})
    kept = book.take(1e9)
    assert len(kept) == journal.MAX_STUDIES
    assert ("a", "1.0") not in kept

"""Admission of callers: the called and the calling AE title, the address and the certificate together."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.association.dimse.services import Admitted
from gateway.association.scp import admission
from gateway.association.scp.admission import KnownSources
from gateway.association.upper.negotiation import AS_PROPOSED, J2K_FIRST, UNCOMPRESSED_FIRST, preferring
from gateway.config.settings import Settings
from gateway.core.errors import AssociationRejected
from gateway.core.throttle import Throttle
from tests.support.waiting import PATIENCE_S, wait_until

NAMES = {"pacs.example": {"10.0.0.7", "fd00::7"}, "other.example": {"10.0.0.8"}}


def sources(tables: Mapping[str, Mapping[str, Any]], *, accept: str = "known", resolve: Any = NAMES.__getitem__) -> KnownSources:
    settings = Settings.model_validate({"gateway": {"ae_title": "GATEWAY"}, "listen": {"accept": accept}, "sources": tables})
    return KnownSources(settings, resolve=resolve)


def decide(
    known: KnownSources,
    calling: str = "PACS",
    address: str = "10.0.0.7",
    *,
    called: str = "GATEWAY",
    names: tuple[str, ...] | None = None,
) -> str | tuple[int, int, int] | None:
    """Return the admitted source, or the rejection."""
    try:
        return known.admit(calling_ae=calling, called_ae=called, address=address, certificate_names=names).source
    except AssociationRejected as rejected:
        return rejected.result, rejected.source, rejected.reason


CALLED_NOT_RECOGNIZED = (1, 1, 7)
CALLING_NOT_RECOGNIZED = (1, 1, 3)
PACS = {"ae_title": "PACS", "host": "pacs.example"}


@pytest.mark.parametrize("address", ["10.0.0.7", "fd00::7"])
def test_a_source_is_known_by_title_and_any_of_its_hosts_addresses(address: str) -> None:
    assert decide(sources({"archive": PACS}), address=address) == "archive"


@pytest.mark.parametrize("called", ["OTHER", "gateway", "ANY-SCP"])
def test_a_foreign_called_title_is_refused_where_only_sources_may_call(called: str) -> None:
    assert decide(sources({"archive": PACS}), called=called) == CALLED_NOT_RECOGNIZED
    assert decide(sources({"archive": PACS}), "OTHER", called=called) == CALLED_NOT_RECOGNIZED


def test_where_anyone_may_call_any_called_title_is_accepted() -> None:
    known = sources({"archive": PACS}, accept="any")
    assert decide(known, called="ANY-SCP") == "archive"
    assert decide(known, "STORESCU", "127.0.0.1", called="ANY-SCP") is None


@pytest.mark.parametrize(
    ("calling", "address"), [("OTHER", "10.0.0.7"), ("PACS", "10.0.0.9"), ("PACS", "nonsense"), ("pacs", "10.0.0.7")]
)
def test_title_and_address_must_both_fit(calling: str, address: str) -> None:
    assert decide(sources({"archive": PACS}), calling, address) == CALLING_NOT_RECOGNIZED


def test_further_addresses_may_be_networks_of_either_family() -> None:
    known = sources({"archive": {**PACS, "addresses": ["192.168.4.0/24", "172.16.0.1", "fd11::/64"]}})
    fits = {address: decide(known, address=address) for address in ("192.168.4.200", "172.16.0.1", "fd11::5", "192.168.5.1")}
    assert fits == {
        "192.168.4.200": "archive",
        "172.16.0.1": "archive",
        "fd11::5": "archive",
        "192.168.5.1": CALLING_NOT_RECOGNIZED,
    }


def test_a_host_may_be_an_address() -> None:
    assert decide(sources({"archive": {"ae_title": "PACS", "host": "10.9.9.9"}}), address="10.9.9.9") == "archive"


def test_sources_may_share_a_title_and_differ_by_address() -> None:
    known = sources({"one": PACS, "two": {"ae_title": "PACS", "host": "other.example"}})
    assert [decide(known, address=address) for address in ("10.0.0.7", "10.0.0.8")] == ["one", "two"]


@pytest.mark.parametrize(
    ("names", "decision"),
    [
        (("pacs.example",), "archive"),
        (("other", "PACS.example"), "archive"),
        (("other",), CALLING_NOT_RECOGNIZED),
        ((), CALLING_NOT_RECOGNIZED),
        (None, CALLING_NOT_RECOGNIZED),
    ],
)
def test_a_source_with_a_certificate_name_has_to_show_it(names: tuple[str, ...] | None, decision: object) -> None:
    assert decide(sources({"archive": {**PACS, "certificate_name": "pacs.example"}}), names=names) == decision


def test_a_certificate_tells_sources_of_equal_title_and_address_apart() -> None:
    known = sources({"plain": PACS, "secure": {**PACS, "certificate_name": "pacs.example"}})
    assert decide(known, names=("pacs.example",)) == "secure"
    assert decide(known) == "plain"


def test_anyone_may_call_where_that_is_said_and_sources_keep_their_names() -> None:
    known = sources({"archive": PACS}, accept="any")
    assert decide(known) == "archive"
    assert decide(known, "STRANGER", "203.0.113.5") is None


def test_an_order_that_was_learned_counts_from_the_next_association_on() -> None:
    known = sources({"archive": PACS})
    call = {"calling_ae": "PACS", "called_ae": "GATEWAY", "address": "10.0.0.7", "certificate_names": None}
    assert known.admit(**call) == Admitted("archive", J2K_FIRST)  # type: ignore[arg-type]
    known.set_order("archive", "uncompressed-first")
    assert known.admit(**call) == Admitted("archive", UNCOMPRESSED_FIRST)  # type: ignore[arg-type]


def first(known: KnownSources, calling: str = "PACS") -> tuple[str, ...]:
    admitted = known.admit(calling_ae=calling, called_ae="GATEWAY", address="10.0.0.7", certificate_names=None)
    return tuple(admitted.transfer_syntaxes[:2])


def test_the_configuration_may_prefer_others_for_all_or_for_one_source() -> None:
    listen = {"accept": "any", "prefer": ["explicit-le", "1.2.840.10008.1.2.4.80"]}
    tables = {"archive": PACS, "other": {"ae_title": "OTHER", "host": "10.0.0.7", "prefer": ["rle-lossless"]}}
    known = KnownSources(Settings.model_validate({"listen": listen, "sources": tables}), resolve=NAMES.__getitem__)
    assert first(known) == first(known, "STRANGER") == ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.80")
    assert first(known, "OTHER") == ("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90")


def test_what_is_preferred_gives_way_to_another_order_and_comes_back() -> None:
    known = sources({"archive": {**PACS, "prefer": ["jpeg-ls-lossless"]}})
    known.set_order("archive", "uncompressed-first")
    assert first(known)[0] == "1.2.840.10008.1.2.1"
    known.set_order("archive", "j2k-first")
    assert first(known) == ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90")


def test_an_order_of_preference_has_every_transfer_syntax() -> None:
    assert set(preferring(["explicit-be"])) == set(J2K_FIRST)


@pytest.mark.parametrize("wrong", ["j2k", "1.2.3", ""])
def test_what_is_no_transfer_syntax_cannot_be_preferred(wrong: str) -> None:
    with pytest.raises(ValidationError, match="transfer syntax UID of the standard, or one of j2k-lossless"):
        Settings.model_validate({"listen": {"prefer": [wrong]}})


def test_orders_may_be_known_from_the_start() -> None:
    settings = Settings.model_validate({"sources": {"archive": PACS}})
    known = KnownSources(settings, {"archive": "uncompressed-first"}, resolve=NAMES.__getitem__)
    admitted = known.admit(calling_ae="PACS", called_ae="GATEWAY", address="10.0.0.7", certificate_names=None)
    assert admitted.transfer_syntaxes == UNCOMPRESSED_FIRST


def test_sop_class_orders_of_a_source_hold_until_another_order_is_set() -> None:
    settings = Settings.model_validate({"sources": {"archive": PACS}})
    known = KnownSources(settings, by_class={"archive": {"1.2": "as-proposed"}}, resolve=NAMES.__getitem__)
    call = {"calling_ae": "PACS", "called_ae": "GATEWAY", "address": "10.0.0.7", "certificate_names": None}
    assert known.admit(**call) == Admitted("archive", J2K_FIRST, by_class=(("1.2", AS_PROPOSED),))  # type: ignore[arg-type]
    known.set_order("archive", "as-proposed")
    assert known.admit(**call) == Admitted("archive", AS_PROPOSED)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="as-proposed"):
        known.set_order("archive", "j2k-first", {"1.2": "sideways"})


def test_there_are_no_other_orders() -> None:
    with pytest.raises(ValueError, match="j2k-first"):
        sources({}).set_order("archive", "any-old")


def test_a_name_server_that_hangs_delays_neither_others_nor_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "START_S", 0.2)
    answered = threading.Event()

    def resolve(host: str) -> set[str]:
        if host == "pacs.example":
            assert answered.wait(PATIENCE_S)
        return NAMES[host]

    known = sources({"slow": PACS, "quick": {"ae_title": "QUICK", "host": "other.example"}}, resolve=resolve)
    wait_until(lambda: decide(known, "QUICK", "10.0.0.8") == "quick", "the quick host's address")
    assert decide(known) == CALLING_NOT_RECOGNIZED
    answered.set()
    wait_until(lambda: decide(known) == "slow", "the slow host's address")


def test_a_host_that_moved_is_found_again_after_its_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "RETRY_S", 0.0)
    addresses = {"10.0.0.7"}
    known = sources({"archive": PACS}, resolve=lambda _host: set(addresses))
    addresses.clear()
    addresses.add("10.0.0.99")
    assert decide(known, address="10.0.0.99") == CALLING_NOT_RECOGNIZED
    wait_until(lambda: decide(known, address="10.0.0.99") == "archive", "the new address")


def test_a_name_server_that_fails_leaves_the_addresses_that_were_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "REFRESH_S", 0.0)
    asked = threading.Semaphore(0)

    def resolve(_host: str) -> set[str]:
        asked.release()
        if not works.is_set():
            raise OSError("no name server")
        return {"10.0.0.7"}

    works = threading.Event()
    works.set()
    known = sources({"archive": PACS}, resolve=resolve)
    works.clear()
    assert decide(known) == "archive"
    assert asked.acquire(timeout=PATIENCE_S)
    assert asked.acquire(timeout=PATIENCE_S)
    assert decide(known) == "archive"


COMMITTING = {"kind": "dicom", "ae_title": "ARCHIVE", "host": "10.0.0.9", "port": 104, "verify": "commitment"}


def reported(*, calling: str = "ARCHIVE", address: str = "10.0.0.9", called: str = "GATEWAY", **values: Any) -> Any:
    """Decide on a report of a destination while only known callers may call."""
    tables = {"archive": COMMITTING | values}
    settings = Settings.model_validate({"gateway": {"ae_title": "GATEWAY"}, "destinations": tables})
    return decide(KnownSources(settings, resolve=NAMES.__getitem__), calling, address, called=called)


def test_a_destination_may_report_commitment_on_its_own_association() -> None:
    assert reported() is None
    assert reported(calling_ae_title="GATEWAY2", called="GATEWAY2") is None


@pytest.mark.parametrize("wrong", [{"verify": "exists"}, {"address": "10.0.0.8"}, {"calling": "OTHER"}])
def test_no_other_destination_and_nobody_else_may(wrong: Mapping[str, Any]) -> None:
    assert reported(**wrong) == (1, 1, 3)


def test_a_destination_that_is_also_a_source_needs_its_certificate() -> None:
    source = {"ae_title": "ARCHIVE", "host": "10.0.0.9", "certificate_name": "archive.example"}
    tables = {"sources": {"archive": source}, "destinations": {"archive": COMMITTING}}
    known = KnownSources(Settings.model_validate({"gateway": {"ae_title": "GATEWAY"}, **tables}), resolve=NAMES.__getitem__)
    assert decide(known, "ARCHIVE", "10.0.0.9") == (1, 1, 3)
    assert decide(known, "ARCHIVE", "10.0.0.9", names=("archive.example",)) == "archive"


def test_a_source_is_admitted_with_its_limits() -> None:
    tables = {"archive": {**PACS, "associations": 2}, "other": {"ae_title": "OTHER", "host": "10.0.0.8"}}
    settings = Settings.model_validate({"gateway": {"ae_title": "GATEWAY"}, "listen": {"accept": "any"}, "sources": tables})
    throttle = Throttle(1_000_000.0)
    known = KnownSources(settings, throttles={"archive": throttle}, resolve=NAMES.__getitem__)

    def admitted(calling: str, address: str) -> Admitted:
        return known.admit(calling_ae=calling, called_ae="GATEWAY", address=address, certificate_names=None)

    archive, other, nobody = admitted("PACS", "10.0.0.7"), admitted("OTHER", "10.0.0.8"), admitted("OTHER", "10.0.0.9")
    assert (archive.associations, archive.throttle) == (2, throttle)
    assert (other.associations, other.throttle) == (None, None)
    assert (nobody.source, nobody.associations, nobody.throttle) == (None, None, None)


OTHER = ("other.example",)
SHOWN = ("pacs.example",)


@pytest.mark.parametrize("accept", ["any", "known"])
@pytest.mark.parametrize(
    ("table", "address", "names"),
    [
        pytest.param({"certificate_name": "pacs.example"}, "10.0.0.7", None, id="in plain"),
        pytest.param({"certificate_name": "pacs.example"}, "10.0.0.7", (), id="TLS without a certificate"),
        pytest.param({"certificate_name": "pacs.example"}, "10.0.0.7", OTHER, id="with another valid certificate"),
        pytest.param({"certificate_name": "pacs.example"}, "10.0.0.9", SHOWN, id="its certificate from elsewhere"),
        pytest.param({"certificate_name": "pacs.example"}, "nonsense", SHOWN, id="from no address"),
        pytest.param({"certificate_name": "pacs.example"}, "10.0.0.7", ("pacs.example.evil",), id="a longer name"),
        pytest.param({"certificate_name": "pacs.example"}, "10.0.0.7", ("*.example",), id="a wildcard is no name"),
        pytest.param({"certificate_name": "pacs.example"}, "10.0.0.7", ("",), id="an empty name"),
        pytest.param({"addresses": ["192.0.2.0/24"]}, "10.0.0.9", None, id="from none of its addresses"),
        pytest.param({"addresses": ["192.0.2.7"]}, "192.0.2.8", None, id="from the address beside"),
        pytest.param({"addresses": ["192.0.2.7"], "certificate_name": "pacs.example"}, "192.0.2.7", OTHER, id="half of both"),
        pytest.param({"addresses": ["fd11::/64"]}, "fd12::1", None, id="from another network"),
    ],
)
def test_what_a_source_demands_holds_in_every_mode(
    accept: str, table: dict[str, Any], address: str, names: tuple[str, ...] | None
) -> None:
    assert decide(sources({"archive": {**PACS, **table}}, accept=accept), address=address, names=names) == CALLING_NOT_RECOGNIZED


def test_a_title_that_two_sources_share_is_demanded_by_either() -> None:
    tables = {"one": {**PACS, "certificate_name": "pacs.example"}, "two": {"ae_title": "PACS", "host": "other.example"}}
    known = sources(tables, accept="any")
    assert [decide(known, address=address) for address in ("10.0.0.7", "10.0.0.8", "10.0.0.9")] == [
        CALLING_NOT_RECOGNIZED,
        "two",
        CALLING_NOT_RECOGNIZED,
    ]
    assert decide(known, names=SHOWN) == "one"


def test_where_anyone_may_call_a_title_that_nobody_demands_is_free() -> None:
    known = sources(
        {"archive": {**PACS, "certificate_name": "pacs.example"}, "free": {"ae_title": "FREE", "host": "10.9.9.9"}}, accept="any"
    )
    assert decide(known, "FREE", "10.1.1.1") is None and decide(known, "SOMEONE", "10.1.1.1", names=OTHER) is None


def test_whoever_is_refused_for_a_demand_is_heard_of() -> None:
    heard: list[tuple[str, str, str]] = []
    settings = Settings.model_validate(
        {"listen": {"accept": "any"}, "sources": {"archive": {"ae_title": "PACS", "host": "10.0.0.7", "certificate_name": "pacs"}}}
    )
    known = KnownSources(settings, turned_away=lambda *caller: heard.append(caller))
    assert decide(known) == CALLING_NOT_RECOGNIZED and heard == [("PACS", "GATEWAY", "10.0.0.7")]

"""Stock pynetdicom beside the gateway, and a quiet log: what is played is wrong on purpose."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog
from pydicom.uid import UID_dictionary

from gateway.association.upper.negotiation import J2K_FIRST, is_storage
from tests.differential.results import tapped
from tests.differential.stock_process import StockPynetdicom


@pytest.fixture(scope="module")
def stock() -> Iterator[StockPynetdicom]:
    """A stock pynetdicom that takes the SOP classes and transfer syntaxes that the gateway takes, in its order."""
    storage = [uid for uid in UID_dictionary if is_storage(uid)]
    with StockPynetdicom(storage, J2K_FIRST) as process, tapped():
        yield process


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)

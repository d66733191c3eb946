"""Damaged, lying and exploding input costs one instance; a crash, a hang or too much memory costs one worker, which is replaced."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate, generate_frames

from gateway.codec.pixels.attributes import PixelDescription
from gateway.codec.workers.order import Order
from gateway.codec.workers.pool import Limits, Pool
from gateway.core.errors import CodecError, CodecFailed, GatewayStopping, NotTranscodable, PixelsDiffer
from gateway.dicom.syntaxes import EXPLICIT_LITTLE, J2K_LOSSLESS, JPEG_BASELINE, JPEG_LOSSLESS_SV1, JPEG_LS_LOSSLESS, RLE_LOSSLESS
from tests.support.data import real_file
from tests.support.images import Image
from tests.support.processes import children_of, state_of
from tests.support.transcoding import DataSet, bring, of_file
from tests.support.waiting import wait_until

_IMAGE = Image()
_UNDEFINED = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"
_END = b"\xfe\xff\xdd\xe0\0\0\0\0"


def _encapsulated(frame: bytes, syntax: str, image: Image = _IMAGE) -> DataSet:
    return DataSet(image.data_set(b"").data[:-12] + _UNDEFINED + encapsulate([frame], has_bot=False) + _END, syntax)


@pytest.fixture(scope="module")
def codestreams(pool: Pool) -> dict[str, bytes]:
    """One frame of `_IMAGE`, compressed in each way that can be written here."""
    source = _IMAGE.data_set(_IMAGE.native(_IMAGE.cells()))
    made = {syntax: bring(source, syntax, pool).read() for syntax in (J2K_LOSSLESS, JPEG_LS_LOSSLESS, RLE_LOSSLESS)}
    return {syntax: next(generate_frames(dataset.PixelData, number_of_frames=1)) for syntax, dataset in made.items()}


@pytest.mark.parametrize("syntax", [J2K_LOSSLESS, JPEG_LS_LOSSLESS, RLE_LOSSLESS])
@pytest.mark.parametrize("tail", [b"", b"\xff\xd9"])
@pytest.mark.parametrize("part", [0.05, 0.5, 0.9])
def test_a_truncated_codestream_is_an_error_and_never_a_grey_image(
    pool: Pool, codestreams: dict[str, bytes], syntax: str, tail: bytes, part: float
) -> None:
    whole = codestreams[syntax]
    cut = whole[: int(len(whole) * part)] + tail
    with pytest.raises(CodecError):
        bring(_encapsulated(cut, syntax), EXPLICIT_LITTLE, pool)


@pytest.mark.parametrize("part", [0.3, 0.9])
@pytest.mark.parametrize("name", ["JPEG-LL.dcm", "JPGLosslessP14SV1_1s_1f_8b.dcm", "SC_rgb_jpeg_gdcm.dcm"])
def test_a_truncated_jpeg_lossless_codestream_is_an_error(pool: Pool, name: str, part: float) -> None:
    source = of_file(real_file(name))
    frame = next(generate_frames(source.read().PixelData, number_of_frames=1))
    cut = frame[: int(len(frame) * part) // 2 * 2] + b"\xff\xd9"
    at = source.data.index(_UNDEFINED)
    damaged = DataSet(source.data[:at] + _UNDEFINED + encapsulate([cut], has_bot=False) + _END, JPEG_LOSSLESS_SV1)
    with pytest.raises(CodecError):
        bring(damaged, EXPLICIT_LITTLE, pool)


def test_dimensions_that_lie_are_seen_before_anything_is_decoded(pool: Pool, codestreams: dict[str, bytes]) -> None:
    j2k = bytearray(codestreams[J2K_LOSSLESS])
    struct.pack_into(">L", j2k, 8, 60_000)
    struct.pack_into(">L", j2k, 12, 60_000)
    with pytest.raises(NotTranscodable, match="60000"):
        bring(_encapsulated(bytes(j2k), J2K_LOSSLESS), EXPLICIT_LITTLE, pool)
    with pytest.raises(NotTranscodable, match="rows, columns and components"):
        bring(_encapsulated(codestreams[JPEG_LS_LOSSLESS], JPEG_LS_LOSSLESS, Image(rows=41)), EXPLICIT_LITTLE, pool)
    with pytest.raises(NotTranscodable, match="bits"):
        bring(_encapsulated(codestreams[J2K_LOSSLESS], J2K_LOSSLESS, Image(allocated=8, stored=8)), EXPLICIT_LITTLE, pool)
    with pytest.raises(NotTranscodable, match="signs"):
        bring(_encapsulated(codestreams[J2K_LOSSLESS], J2K_LOSSLESS, Image(signed=True)), EXPLICIT_LITTLE, pool)


def test_a_consistent_bomb_hits_the_memory_limit_and_the_pool_goes_on(codestreams: dict[str, bytes]) -> None:
    j2k = bytearray(codestreams[J2K_LOSSLESS])
    struct.pack_into(">2L", j2k, 8, 30_000, 30_000)
    struct.pack_into(">2L", j2k, 24, 30_000, 30_000)
    bomb = _encapsulated(bytes(j2k), J2K_LOSSLESS, Image(rows=30_000, columns=30_000))
    with Pool(1, Limits(memory_bytes=256 * 1024**2)) as pool:
        with pytest.raises(CodecFailed):
            bring(bomb, EXPLICIT_LITTLE, pool)
        bring(_IMAGE.data_set(_IMAGE.native(_IMAGE.cells())), J2K_LOSSLESS, pool)


def test_frames_too_large_for_uncompressed_pixel_data_are_not_begun(pool: Pool, codestreams: dict[str, bytes]) -> None:
    image = Image(frames=2_000_000)
    with pytest.raises(NotTranscodable, match="do not fit"):
        bring(_encapsulated(codestreams[J2K_LOSSLESS], J2K_LOSSLESS, image), EXPLICIT_LITTLE, pool)


@given(st.data())
@settings(max_examples=60)
def test_damaged_codestreams_never_reach_the_gateway(pool: Pool, codestreams: dict[str, bytes], data: st.DataObject) -> None:
    syntax = data.draw(st.sampled_from([J2K_LOSSLESS, JPEG_LS_LOSSLESS, RLE_LOSSLESS, JPEG_BASELINE, JPEG_LOSSLESS_SV1]))
    frame = bytearray(codestreams.get(syntax, codestreams[JPEG_LS_LOSSLESS]))
    for _ in range(data.draw(st.integers(1, 8))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        bring(_encapsulated(bytes(frame), syntax), EXPLICIT_LITTLE, pool, allow_decompressed_lossy=True)
    except CodecError:
        return


def test_lossy_pixels_are_not_opened_unless_that_is_allowed(pool: Pool) -> None:
    source = of_file(real_file("JPEG2000.dcm"))
    with pytest.raises(NotTranscodable, match="allow_decompressed_lossy"):
        bring(source, EXPLICIT_LITTLE, pool)
    made = bring(source, EXPLICIT_LITTLE, pool, allow_decompressed_lossy=True).read()
    assert made.LossyImageCompression == "01"


def test_decompressed_lossy_pixels_say_that_they_were_lossy(pool: Pool) -> None:
    source = of_file(real_file("JPEGLSNearLossless_08.dcm"))
    assert "LossyImageCompression" not in source.read()
    made = bring(source, EXPLICIT_LITTLE, pool, allow_decompressed_lossy=True).read()
    assert made.LossyImageCompression == "01"
    assert list(made.keys()) == sorted(made.keys())


_PIXEL = PixelDescription(512, 512, 1, "MONOCHROME2", 0, 16, 16, False)
_ORDER = Order(EXPLICIT_LITTLE, J2K_LOSSLESS, _PIXEL, "MONOCHROME2", "MONOCHROME2")


@pytest.fixture
def frame_file(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "frame"
    path.write_bytes(np.random.default_rng(0).integers(0, 65536, 512 * 512, dtype="<u2").tobytes())
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def _descriptors() -> set[str]:
    """Return what this process has open, but the folder that tells."""
    links = {entry.name: entry for entry in Path("/proc/self/fd").iterdir()}
    return {name for name, entry in links.items() if entry.is_symlink()}


def _workers_of(before: set[int]) -> set[int]:
    return children_of(os.getpid()) - before


def _encode(pool: Pool, fd: int) -> bytes:
    return pool.submit(_ORDER, fd, [(0, 512 * 512 * 2)], lambda result, length: os.pread(result, length, 0)).result(60)


def test_a_worker_that_is_killed_costs_one_frame(frame_file: int) -> None:
    before = children_of(os.getpid())
    with Pool(1) as pool:
        whole = _encode(pool, frame_file)
        (worker,) = _workers_of(before)
        os.kill(worker, 9)
        with pytest.raises(CodecFailed, match="signal 9"):
            _encode(pool, frame_file)
        assert _encode(pool, frame_file) == whole
        assert _workers_of(before).isdisjoint({worker})
    assert _workers_of(before) == set()


def test_a_worker_that_hangs_is_ended_in_time(frame_file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = children_of(os.getpid())
    with Pool(1, Limits(seconds=5)) as pool:
        _encode(pool, frame_file)
        (worker,) = _workers_of(before)
        os.kill(worker, 19)  # SIGSTOP
        with monkeypatch.context() as impatient, pytest.raises(CodecFailed, match="no answer in time"):
            impatient.setattr("gateway.codec.workers.pool._WALL_CLOCK_FACTOR", 0.2)
            _encode(pool, frame_file)
        _encode(pool, frame_file)
    assert _workers_of(before) == set()


def test_a_worker_that_computes_for_ever_is_ended_by_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One CPU second takes any number of others on a busy machine: the limit of real time must not come first.
    monkeypatch.setattr("gateway.codec.workers.pool._WALL_CLOCK_FACTOR", 100)
    pixel = PixelDescription(30_000, 30_000, 1, "MONOCHROME2", 0, 16, 16, False)
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(pixel.frame_bytes)
        order = Order(EXPLICIT_LITTLE, RLE_LOSSLESS, pixel, "MONOCHROME2", "MONOCHROME2")
    with Pool(1, Limits(memory_bytes=64 * 1024**3, seconds=1)) as pool, path.open("rb") as file:
        future = pool.submit(order, file.fileno(), [(0, pixel.frame_bytes)], lambda _, length: length)
        with pytest.raises(CodecFailed, match="more than 1 seconds"):
            future.result(100)


def test_closing_ends_what_is_running_and_leaves_nothing(frame_file: int) -> None:
    before, descriptors = children_of(os.getpid()), _descriptors()
    pool = Pool(2)
    running = [pool.submit(_ORDER, frame_file, [(0, 512 * 512 * 2)], lambda _, length: length) for _ in range(40)]
    assert running[0].result(60)
    pool.close()
    stopped = [future for future in running if future.cancelled() or isinstance(future.exception(0), GatewayStopping)]
    assert len(stopped) > 20
    assert _workers_of(before) == set()
    assert _descriptors() == descriptors
    with pytest.raises(GatewayStopping):
        pool.submit(_ORDER, frame_file, [], lambda _, length: length)


def test_a_worker_has_nothing_of_the_gateway(frame_file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY__SECRET", "hidden")
    before = children_of(os.getpid())
    inheritable, other = os.pipe()
    os.set_inheritable(inheritable, True)
    try:
        with Pool(1) as pool:
            _encode(pool, frame_file)
            (worker,) = _workers_of(before)
            environment = Path(f"/proc/{worker}/environ").read_bytes()
            open_files = [str(entry.readlink()) for entry in Path(f"/proc/{worker}/fd").iterdir()]
    finally:
        os.close(inheritable)
        os.close(other)
    assert b"hidden" not in environment
    assert sorted(name.split(":")[0] for name in open_files) == ["/dev/null"] * 3 + ["/memfd", "socket"]


def test_workers_end_with_a_gateway_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys, numpy; from tests.codec.test_hostile import _ORDER, _encode; from gateway.codec.workers.pool import Pool\n"
        "fd = os.memfd_create('frame'); os.pwrite(fd, bytes(512 * 512 * 2), 0); pool = Pool(1); _encode(pool, fd)\n"
        "print(next(iter(pool._running))._process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        process.wait(60)
    wait_until(lambda: state_of(worker) in ("", "Z"), "the end of a worker whose gateway was killed")


def test_many_callers_share_the_workers(pool: Pool) -> None:
    images = [Image(rows=40 + number, frames=3) for number in range(8)]

    def there(image: Image) -> bool:
        source = image.data_set(image.native(image.cells()))
        return bring(bring(source, J2K_LOSSLESS, pool), EXPLICIT_LITTLE, pool) == source

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(there, images))


def test_a_codec_that_changes_pixels_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.codec.workers import engines, work

    honest = engines.encode

    def lying(values: engines.Cells, pixel: PixelDescription, syntax: str) -> bytes:
        changed = values.copy()
        changed[3, 5, 0] ^= 1
        return honest(changed, pixel, syntax)

    monkeypatch.setattr(engines, "encode", lying)
    for syntax in (J2K_LOSSLESS, JPEG_LS_LOSSLESS, RLE_LOSSLESS):
        order = Order(EXPLICIT_LITTLE, syntax, PixelDescription(64, 64, 1, "MONOCHROME2", 0, 16, 12, False), *(["MONOCHROME2"] * 2))
        with pytest.raises(PixelsDiffer):
            work.do(order, bytes(64 * 64 * 2))


def test_an_encoder_that_writes_rubbish_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.codec.workers import engines, work

    monkeypatch.setattr(engines, "encode", lambda *_: zlib.compress(b"rubbish"))
    with pytest.raises(CodecError):
        work.do(_ORDER, bytes(_PIXEL.frame_bytes))

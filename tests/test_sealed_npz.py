"""Damaged, foreign and hostile files: refused with a sentence, never executed, never expanded."""

import hashlib
import json
import os
import pickle
import re
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from higcore import Result, load_checkpoint, save_checkpoint
from higcore.half_inverse import HalfInverseInfo
from higcore.training import files
from higcore.training.result import Best, Epoch, State

THETA = np.array([1.0, -2.0, 3.0])
INFO = HalfInverseInfo("gram", 3, 1.0, 0.5, 1e-6, float("inf"))
RESULT = Result(
    State(THETA, {"mean": THETA / 2, "updates": 7}, 7, 0.5, info=INFO),
    [Epoch(0.0, 0, 0.0, None, 2.0), Epoch(1.0, 7, 0.5, 1.5, 1.0, 1.25)],
    batch=4,
    identity={"problem": "toy"},
    best=Best(THETA / 4, 1.25, 1.0, 7),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Bytes of a checkpoint."""
    path = tmp_path_factory.mktemp("whole") / "run.npz"
    save_checkpoint(path, RESULT)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path, whole):
    path = tmp_path / "run.npz"
    path.write_bytes(whole)
    return path


def sealed(data):
    """The bytes with a seal that fits them, which anyone can compute."""
    return data[:-64] + hashlib.sha256(data[:-64]).hexdigest().encode()


def seal(path):
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"higcore sha256 " + bytes(64)
    path.write_bytes(sealed(path.read_bytes()))


def parts(path):
    """Header and arrays of a file, by NumPy alone."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(arrays.pop("header").item()), arrays


def refusal(path):
    """Load a file; the message of the ValueError, "" if there is none."""
    try:
        assert isinstance(load_checkpoint(path), Result)
        return ""
    except ValueError as error:
        return str(error)


def assert_refused(path, reason=""):
    """It is refused with one sentence that names the path."""
    start = re.escape(f"path {str(path)!r} is no usable checkpoint: ")
    assert re.fullmatch(f"{start}.*({reason}).*", refusal(path))  # . is no new line


def test_numpy_opens_it(path):
    header, arrays = parts(path)
    assert (header["format"], header["version"], header["higcore"]) == (
        "higcore checkpoint", 3, "0.1.0",
    )  # fmt: skip
    assert set(arrays) == {"theta", "best.theta", "optimizer.mean"}
    assert header["best"] == {"theta": None, "loss": 1.25, "epoch": 1.0, "step": 7}
    assert arrays["best.theta"].tobytes() == (THETA / 4).tobytes()
    assert arrays["theta"].tobytes() == THETA.tobytes()
    assert arrays["optimizer.mean"].tobytes() == (THETA / 2).tobytes()


def test_the_checksum_is_that_of_all_bytes_before_it(path, whole, monkeypatch):
    assert whole == sealed(whole)
    assert whole[-79:-64] == b"higcore sha256 "
    monkeypatch.setattr(files, "CHUNK", 100)
    save_checkpoint(path, load_checkpoint(path))
    assert path.read_bytes() == whole


def test_every_flipped_bit_is_noticed(path, whole):
    """In data, names, time stamps, the zip directory, the checksum: wherever it is."""
    flipped = bytearray(whole)
    with open(path, "r+b") as stream:
        for place in range(len(whole)):
            for bit in range(8):
                flipped[place] ^= 1 << bit
                stream.seek(0)
                stream.write(flipped)
                stream.flush()
                assert "is no usable checkpoint" in refusal(path), (place, bit)
                flipped[place] = whole[place]


def test_every_shortened_or_lengthened_file_is_refused(path, whole):
    for length in range(len(whole) - 1, -1, -1):
        os.truncate(path, length)
        assert "is no usable checkpoint" in refusal(path), length
    for length in (10, 100, len(whole) // 2):
        path.write_bytes(whole[:length])
        assert_refused(path, "it is cut off: it begins as an npz file, but its end is missing")
    path.write_bytes(whole[:-10])
    assert_refused(path, "its checksum is missing, so some of its bytes were altered or cut off")
    for longer in (whole + b"\0", b"\0" + whole, whole + whole):
        path.write_bytes(longer)
        assert_refused(path)


def test_damage_under_a_checksum_that_fits_raises_nothing_else(path, whole):
    """Whoever forges the checksum meets the checks of every part; some damage is harmless."""
    rng = np.random.default_rng(0)
    harmless = 0
    for _ in range(1500):
        data = bytearray(whole)
        for place in rng.integers(0, len(data) - 79, rng.integers(1, 4)):
            data[place] = rng.integers(256)
        path.write_bytes(sealed(bytes(data)))
        message = refusal(path)
        harmless += not message  # a time stamp, say
        assert not message or "is no usable checkpoint" in message
    assert 0 < harmless < 750


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.data(), JSON)
@settings(max_examples=100)
def test_a_header_with_anything_in_it_raises_nothing_else(tmp_path_factory, whole, data, value):
    path = tmp_path_factory.mktemp("header") / "run.npz"
    path.write_bytes(whole)
    header, arrays = parts(path)
    place = header
    for _ in range(3):
        key = data.draw(st.sampled_from(sorted(place)))
        if not (isinstance(place[key], dict) and place[key] and data.draw(st.booleans())):
            break
        place = place[key]
    place[key] = value
    np.savez(path, header=json.dumps(header), **arrays)
    seal(path)
    message = refusal(path)
    assert not message or "is no usable checkpoint" in message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"theta = 1, 2, 3\n", "it is no npz file"),
        (b"PK\x03\x04" + bytes(100), "it is cut off: it begins as an npz file, but its end"),
        (bytes(10_000), "it is no npz file"),
        (b"higcore sha256 " + b"0" * 64, "its checksum is not that of its bytes"),
        (b"PK\x05\x06" + bytes(18), "it is no npz file"),
    ],
)
def test_garbage(path, content, reason):
    path.write_bytes(content)
    assert_refused(path, reason)


def test_other_npz_files(path):
    np.savez(path, weights=THETA)
    assert_refused(path, "it is an npz file without a header")
    np.savez(path, header=THETA, theta=THETA)
    assert_refused(path, "array 'header' has dtype float64")
    np.savez(path, header="no JSON", theta=THETA)
    assert_refused(path, "JSONDecodeError")
    np.savez(path, header="[1]", theta=THETA)
    assert_refused(path, "its header is a list")
    np.savez(path, header="{}", theta=THETA)
    assert_refused(path, "its header says format None, not 'higcore checkpoint'")
    np.savez(path, header="[" * 100_000, theta=THETA)
    assert_refused(path, "RecursionError")


class Payload:
    """Unpickling it would create a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_pickles_are_never_opened(path, tmp_path):
    target = tmp_path / "executed"
    objects = np.array([Payload(target)], dtype=object)
    with open(path, "wb") as stream:
        pickle.dump(Payload(target), stream)
    assert_refused(path, "it is no npz file")
    np.savez(path, header=objects)
    assert_refused(path, "array 'header' has dtype object")
    save_checkpoint(path, RESULT)
    header, _ = parts(path)
    np.savez(path, header=json.dumps(header), theta=objects)
    seal(path)
    assert_refused(path, "array 'theta' has dtype object; a checkpoint holds numbers only")
    assert not target.exists()
    with open(path, "wb") as stream:
        pickle.dump(Payload(target), stream)
    pickle.loads(path.read_bytes())
    assert target.exists(), "the payload does nothing, so this test would show nothing"


def test_versions(path):
    header, arrays = parts(path)
    files.write_sealed(path, header | {"version": 7, "higcore": "9.1"}, arrays)
    reason = "it is of version 7, written by higcore 9.1; this higcore 0.1.0 reads up to version 3"
    assert_refused(path, reason + ", so upgrade higcore")
    for version in (1, 0, -1, "2", None, 2.5, True):
        files.write_sealed(path, header | {"version": version}, arrays)
        assert_refused(path, f"its version is {version!r}, which there never was")
    for other in ("a checkpoint", "higcore checkpoint 1"):
        files.write_sealed(path, header | {"format": other}, arrays)
        assert_refused(path, f"its header says format {other!r}, not 'higcore checkpoint'")
    np.savez(path, header=json.dumps(header | {"format": "higcore checkpoint 1"}), **arrays)
    assert_refused(path, "its header says format 'higcore checkpoint 1', not")


@pytest.mark.parametrize(
    ("part", "name", "value", "reason"),
    [
        ("fields", "batch", "8", "batch is of type .*str.*, not .*int"),
        ("fields", "fallbacks", 0.5, "fallbacks is of type .*float.*, not .*int"),
        ("fields", "identity", ["toy"], "identity is of type .*list.*, not .*dict"),
        ("fields", "message", None, "message is of type .*NoneType.*, not .*str"),
        ("state", "seconds", "0.5", "seconds is of type .*str.*, not .*float"),
        ("state", "optimizer", [1], "TypeError"),
        ("fields", "history", [[0.0, 0, 0.0, None, "2.0"]], "hold numbers, not .*str"),
        ("fields", "history", [[0.0, 0, 0.0, None]], "missing 1 required positional argument"),
        ("fields", "history", [[0.0] * 7], "takes from 6 to 7 positional arguments but 8"),
        ("best", "loss", "1", "loss is of type .*str.*, not .*float"),
        ("best", "epoch", None, "epoch is of type .*NoneType.*, not .*float"),
        ("best", "step", 0.5, "step is of type .*float.*, not .*int"),
        ("best", "more", 1, "unexpected keyword argument 'more'"),
        ("fields", "diagnostics", [[[]] * 9], "hold numbers, not .*list"),
        ("fields", "more", 1, "unexpected keyword argument 'more'"),
    ],
)
def test_headers_of_something_else(path, part, name, value, reason):
    header, arrays = parts(path)
    header[part][name] = value
    files.write_sealed(path, header, arrays)
    assert_refused(path, reason)


def test_what_version_2_did_not_know(path):
    header, arrays = parts(path)
    header["version"], best = 2, header.pop("best")
    header["fields"]["history"] = [row[:5] for row in header["fields"]["history"]]
    files.write_sealed(path, header, arrays)
    assert_refused(path, "array 'best.theta' does not belong in a checkpoint")
    theta_of_best = arrays.pop("best.theta")
    files.write_sealed(path, header, arrays)
    loaded = load_checkpoint(path)
    assert (loaded.best, loaded.history[-1].validation_loss) == (None, None)
    files.write_sealed(path, header | {"best": best}, arrays)
    assert_refused(path, "array 'best.theta' is missing")
    files.write_sealed(path, header | {"best": {}}, arrays | {"best.theta": theta_of_best})
    assert_refused(path, "TypeError")


def test_a_file_without_its_checksum(path):
    header, arrays = parts(path)
    np.savez(path, header=json.dumps(header), **arrays)
    assert_refused(path, "its checksum is missing")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"theta": None}, "array 'theta' is missing"),
        ({"weights": THETA}, "array 'weights' does not belong in a checkpoint"),
        ({"theta": np.array([1.0, np.nan, 1.0])}, "theta holds 1 non-finite value"),
        ({"theta": np.array([1, 2, 3])}, "theta must be a float32 or float64 array, got dtype in"),
        ({"theta": THETA[:, None]}, "theta must have shape"),
        ({"theta": THETA[:0]}, "theta is empty"),
        ({"theta": THETA.astype("f2")}, "theta must be a float32 or float64 array, got dtype fl"),
        ({"best.theta": None}, "array 'best.theta' is missing"),
        ({"best.theta": THETA[:2]}, r"best.theta must have shape \(3,\), got \(2,\)"),
        ({"best.theta": THETA * np.inf}, "best.theta holds 3 non-finite value"),
        ({"best.theta": THETA.astype("f4")}, "best.theta is float32|share one dtype"),
    ],
)
def test_wrong_arrays(path, changes, reason):
    header, arrays = parts(path)
    arrays = {k: v for k, v in (arrays | changes).items() if v is not None}
    files.write_sealed(path, header, arrays)
    assert_refused(path, reason)


def rewrite(path, changes, compression=zipfile.ZIP_STORED):
    """Write the members of an archive anew, some of them changed, under a new seal."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()} | changes
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    seal(path)


def npy_header(shape, descr="<f8"):
    body = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body.encode()


def test_a_header_written_by_hand_can_be_right(path):
    rewrite(path, {"theta.npy": npy_header("(3,)") + THETA.tobytes()})
    assert load_checkpoint(path).theta.tobytes() == THETA.tobytes()


@pytest.mark.parametrize("shape", ["(1000000000000000,)", "(-1, -3)", "(3, 0)", "(2,)", "()"])
def test_shapes_that_do_not_fit_the_bytes(path, shape):
    rewrite(path, {"theta.npy": npy_header(shape) + bytes(24)})
    assert_refused(path, f"array 'theta' {re.escape(shape)} of float64 cannot be its 24 bytes")


@pytest.mark.parametrize("descr", ["|O", "<M8[s]", "|V8", [("a", "<f8")], "|S8"])
def test_dtypes_that_are_no_numbers(path, descr):
    rewrite(path, {"theta.npy": npy_header("(3,)", descr) + bytes(24)})
    assert_refused(path, "array 'theta' has dtype .*; a checkpoint holds numbers only")


@pytest.mark.parametrize("shape", ["(10**15,)", "3", "(" * 3000 + "3" + ")" * 3000, "[3]", "("])
@pytest.mark.parametrize("descr", ["<f8", "<f7", "import os", 5])
def test_npy_headers_that_are_none(path, shape, descr):
    rewrite(path, {"theta.npy": npy_header(shape, descr) + bytes(24)})
    assert_refused(path, "array 'theta' has no npy header of version 1.0|TokenError")


def test_a_zip_bomb_is_not_expanded(path, monkeypatch):
    bomb = npy_header("(12500000,)") + bytes(10**8)
    rewrite(path, {"theta.npy": bomb}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**6
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda *_: pytest.fail("it was read"))
    assert_refused(path, "it is compressed, which a checkpoint never is")


def test_members_that_overlap(path):
    """Arrays within arrays could make a small file take the square of its size."""
    inner = npy_header("(100,)") + bytes(800)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("b.npy", inner)
    (info,), start = archive.infolist(), 30 + len("a.npy")  # bytes of a local header
    outer = path.read_bytes()[: start + len(inner)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", outer)
        info.header_offset = start
        archive.filelist.append(info)
    seal(path)
    assert_refused(path, f"its arrays are said to take more than its {path.stat().st_size} bytes")


def test_an_array_twice(path):
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("theta.npy", b"")
    seal(path)
    assert_refused(path, "it holds an array twice")


def test_errors_of_the_file_system_stay_what_they_are(tmp_path, path):
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "absent.npz")
    with pytest.raises(IsADirectoryError):
        load_checkpoint(tmp_path)
    with pytest.raises(NotADirectoryError):
        load_checkpoint(path / "run.npz")
    path.chmod(0)
    if not os.access(path, os.R_OK):  # root may read everything
        with pytest.raises(PermissionError):
            load_checkpoint(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    assert_refused(tmp_path / "pipe.npz", "it is no regular file")

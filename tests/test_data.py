"""The named data sets: every source in turn, what is refused, and what is left behind when something goes wrong."""

import copyreg
import dataclasses
import errno
import http.server
import io
import json
import logging
import os
import pickle
import random
import re
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from diffurec import DataError, Dataset, fetch, leave_one_out, load_dataset
from diffurec.data import KNOWN, named, published, saved
from diffurec.data.saved import read_saved

PICKLES = ["amazon-beauty", "amazon-toys", "ml-1m"]
SUM = "[0-9a-f]{64}"
DEAD = "http://127.0.0.1:9/"        # the discard port: nothing listens there


@pytest.fixture(autouse=True)
def nothing_real(tmp_path, monkeypatch):
    """No test sees the user's data directory or touches the real cache, and none waits for a network."""
    real = os.environ.get("DIFFUREC_DATA_DIR")
    monkeypatch.delenv("DIFFUREC_DATA_DIR", raising=False)
    monkeypatch.setenv("DIFFUREC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    for name, known in KNOWN.items():
        monkeypatch.setitem(KNOWN, name, dataclasses.replace(known, url=DEAD + known.url.rsplit("/", 1)[-1]))
    return real


@pytest.fixture
def real_data(nothing_real):
    if not nothing_real:
        pytest.skip("DIFFUREC_DATA_DIR is not set: the published pickles were not read")
    return Path(nothing_real)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def everything_below(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


# Small stand-ins for the published files, with the counts and checksums in KNOWN changed to theirs.

TRAIN = {0: [1, 2, 3], 1: [4, 1], 2: [2]}
TINY = {"train": TRAIN, "val": {0: [4], 1: [2], 2: [3]}, "test": {0: [5], 1: [3], 2: [5]}, "umap": {}, "smap": {}}
TINY_ITEMS = [1, 2, 3, 4, 5, 4, 1, 2, 3, 2, 3, 5]
TINY_OFFSETS = [0, 5, 9, 12]


def pretend(monkeypatch, name, data, **changes):
    monkeypatch.setitem(KNOWN, name, dataclasses.replace(
        KNOWN[name], users=data.num_users, items=data.num_items, interactions=len(data.items),
        checksum=data.checksum, **changes))


def tiny_dataset(name="ml-1m", **more):
    return Dataset(name, 5, np.array(TINY_ITEMS), np.array(TINY_OFFSETS), **more)


@pytest.fixture
def tiny_pickle(monkeypatch):
    """The bytes of a published-like pickle that stands for ml-1m in this test."""
    content = pickle.dumps(TINY)
    path = Path(os.environ["TMPDIR"]) / "sum"
    path.write_bytes(content)
    pretend(monkeypatch, "ml-1m", tiny_dataset(), sha256=published.sha256(path))
    path.unlink()
    return content


# Two users: user 1 rates film 3 first, then films 2 and 1 within one second (2 stands first in the file), then 4.
RATINGS = [(2, 4, 50), (1, 2, 20), (2, 1, 50), (1, 3, 10), (1, 1, 20), (2, 3, 50), (1, 4, 30)]
FILMS = [("Toy Story (1995)", "Toy Story", "1995", ["Animation", "Children's", "Comedy"]),
         ("unknown", "unkonwn", "unkonwn", ["unknown"]),
         ("Land (1995) (V)", "Land (1995)", "V", ["Animation"]),
         ("Cérémonie, La (1995)", "Cérémonie, La", "1995", ["Drama"])]
FILM_ITEMS = [3, 2, 1, 4, 4, 1, 3]
TITLES = ("", *(film[0] for film in FILMS))


def grouplens_files():
    rows = []
    for number, (title, _, _, genres) in enumerate(FILMS, 1):
        flags = ["1" if genre in genres else "0" for genre in published.GENRES]
        rows.append("|".join([str(number), title, "01-Jan-1995", "", "http://x", *flags]))
    rows[2] = rows[2].replace("(V)|", "(V) |")      # a trailing blank, as a few published titles may have
    return {"u.data": "".join(f"{u}\t{i}\t4\t{t}\n" for u, i, t in RATINGS).encode(),
            "u.item": ("\n".join(rows) + "\n").encode("latin-1")}


def recbole_files():
    ratings = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    films = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    ratings += "".join(f"{u}\t{i}\t4\t{t}\n" for u, i, t in RATINGS)
    films += "".join(f"{n}\t{title}\t{year}\t{' '.join(g)}\n" for n, (_, title, year, g) in enumerate(FILMS, 1))
    return {"ml-100k.inter": ratings.encode(), "ml-100k.item": films.encode()}


def zipped(files, folder):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(folder + name, content)
    return buffer.getvalue()


@pytest.fixture
def tiny_films(monkeypatch):
    pretend(monkeypatch, "ml-100k", Dataset("ml-100k", 4, np.array(FILM_ITEMS), np.array([0, 4, 7])))


@pytest.fixture
def serve(monkeypatch):
    """serve(name, content, length=None, status=200): the address of the set `name` now gives `content` on the loopback."""
    servers = []

    def start(name, content, length=None, status=200):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("Content-Length", str(len(content) if length is None else length))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        server.timeout = 10
        thread = threading.Thread(target=server.handle_request, daemon=True)      # one request, then it ends
        thread.start()
        servers.append((server, thread))
        file = KNOWN[name].url.rsplit("/", 1)[-1]
        monkeypatch.setitem(KNOWN, name, dataclasses.replace(
            KNOWN[name], url=f"http://127.0.0.1:{server.server_port}/{file}"))

    yield start
    for server, thread in servers:
        thread.join(timeout=15)
        server.server_close()


@pytest.fixture
def no_pip(monkeypatch):
    """pip without an index, as on a machine with no network."""
    def run(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution found for recbole==1.2.1\n")
    monkeypatch.setattr(published.subprocess, "run", run)


# The Dataset itself.

def test_sequences_are_read_only_views_and_behave_like_a_list():
    data = tiny_dataset()
    assert [s.tolist() for s in data.sequences] == [[1, 2, 3, 4, 5], [4, 1, 2, 3], [2, 3, 5]]
    assert len(data.sequences) == data.num_users == 3
    assert data.sequences[-1].tolist() == [2, 3, 5]
    assert [s.tolist() for s in data.sequences[1:]] == [[4, 1, 2, 3], [2, 3, 5]]
    assert np.shares_memory(data.sequences[0], data.items)
    assert data.items.dtype == np.int32 and data.offsets.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        data.sequences[0][0] = 9
    with pytest.raises(IndexError, match="There is no user 3"):
        data.sequences[3]
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.num_items = 9


def test_a_dataset_does_not_freeze_the_callers_arrays():
    items = np.array(TINY_ITEMS, np.int32)
    Dataset("x", 5, items, np.array(TINY_OFFSETS))
    items[0] = 2


def test_checksum_is_of_the_documented_bytes():
    import hashlib
    import struct
    content = struct.pack("<q4q12i", 5, *TINY_OFFSETS, *TINY_ITEMS)
    assert tiny_dataset().checksum == hashlib.sha256(content).hexdigest()
    assert Dataset("x", 6, np.array(TINY_ITEMS), np.array(TINY_OFFSETS)).checksum != tiny_dataset().checksum


@pytest.mark.parametrize("changes, sentence", [
    ({"items": [1, 2, 0]}, "within 1..3, but 1 do not, the first of them 0"),
    ({"items": [1, 2, 4]}, "the first of them 4"),
    ({"items": [1.0, 2.0, 3.0]}, "items must be a one-dimensional array of whole numbers"),
    ({"items": [[1], [2], [3]]}, "one-dimensional"),
    ({"offsets": [0, 2]}, "offsets must run from 0 to the number of interactions, 3"),
    ({"offsets": [0, 4, 3]}, "offsets must not fall"),
    ({"offsets": [0, 1, 3]}, "2 users have fewer than 3 interactions, the first of them user 0"),
    ({"offsets": [0]}, "at least one user"),
    ({"num_items": 0}, "num_items must be a whole number"),
    ({"num_items": True}, "num_items must be a whole number"),
    ({"num_items": 2**31}, "num_items must be .* between 1 and 2147483647, but it is 2147483648"),
    ({"items": [1, 2, 2**32 + 1]}, "the first of them 4294967297"),        # 1, if it were cut to 32 bits
    ({"offsets": [0, 2**62, 2**63 - 1, -2**62, 3]}, "offsets must not fall"),      # the differences overflow
    ({"titles": ("",)}, "titles must have 4 entries"),
])
def test_a_dataset_refuses_what_it_cannot_be(refused, changes, sentence):
    fields = {"num_items": 3, "items": [1, 2, 3], "offsets": [0, 3], **changes}
    for array in ("items", "offsets"):
        fields[array] = np.array(fields[array])
    (name, value), = changes.items()
    with refused(f"a Dataset of 3 items and 3 interactions with {name} = {value}", ValueError, match=sentence):
        Dataset("x", **fields)


def test_more_interactions_than_positions_have_bits_are_refused(refused):
    items = np.broadcast_to(np.int32(1), 2**31)
    with refused("a Dataset of 2^31 interactions", ValueError,
                 match="at most 2147483647 interactions, but there are 2147483648"):
        Dataset("x", 1, items, np.array([0, 2**31]))


def test_summary_tells_counts_source_and_notes():
    text = tiny_dataset(source="a test", notes=("Two were dropped.",)).summary()
    for part in ("3 users, 5 items, 12 interactions", "mean 4.00, median 4, 3 to 5", "80.000%", "a test", "Two were"):
        assert part in text


# The published files.

@pytest.mark.parametrize("name", PICKLES)
def test_published_pickle(name, real_data):
    data = load_dataset(name, data_dir=real_data)       # counts and checksum are asserted inside
    assert (data.num_users, data.num_items, len(data.items)) == {
        "amazon-beauty": (22_363, 12_101, 198_502), "amazon-toys": (19_412, 11_924, 167_597),
        "ml-1m": (6_040, 3_706, 1_000_209)}[name]
    with open(real_data / KNOWN[name].folder / "dataset.pkl", "rb") as file:
        raw = published.PlainUnpickler(file).load()
    for user in (0, 1, data.num_users - 1):
        assert data.sequences[user].tolist() == raw["train"][user] + raw["val"][user] + raw["test"][user]
    assert data.titles is None and data.genres is None
    assert set(np.unique(data.items)) == set(range(1, data.num_items + 1))


def test_memory_of_ml_1m_and_its_splits(real_data):
    tracemalloc.start()
    try:
        data = load_dataset("ml-1m", data_dir=real_data)
        splits = {split: leave_one_out(data, split, 50) for split in ("train", "validation", "test")}
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # tracemalloc does not see what torch allocates itself; where a tensor shares numpy's memory it counts twice here.
    tensors = sum(t.nbytes for s in splits.values() for t in (s.items, s.first, s.target))
    print(f"held {held / 1e6:.1f} MB and {tensors / 1e6:.1f} MB in tensors, peak while loading {peak / 1e6:.1f} MB")
    assert len(splits["train"]) == 982_089
    assert held + tensors < 100e6
    assert peak < 100e6     # with Python's lists and numbers while the pickle is open


def test_cache_gives_what_the_pickle_gave(real_data, tmp_path):
    data = load_dataset("amazon-toys", data_dir=real_data)
    data.save(tmp_path / "project" / "amazon-toys.npz")
    again = load_dataset("amazon-toys", data_dir=tmp_path / "project")
    assert again.checksum == data.checksum == KNOWN["amazon-toys"].checksum
    assert again.source == data.source


@pytest.mark.network
def test_the_real_ml_100k_from_the_wheel_and_then_the_cache(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "diffurec")
    try:
        data = load_dataset("ml-100k")
    except DataError as error:
        if "pip could not download" not in str(error):
            raise
        pytest.skip("the real ml-100k was not read: pip cannot download recbole==1.2.1 here")
    assert (data.num_users, data.num_items, len(data.items)) == (943, 1682, 100_000)
    assert data.titles[0] == "" and data.titles[1] == "Toy Story (1995)" and data.titles[267] == "unknown"
    assert data.titles[1412] == "Land Before Time III: The Time of the Great Giving (1995) (V)"
    assert data.genres[1] == ("Animation", "Children's", "Comedy") and data.genres[0] == ()
    assert len(data.titles) == len(data.genres) == 1683

    monkeypatch.setattr(published.subprocess, "run", None)        # from here on nothing may call pip
    again = load_dataset("ml-100k")
    assert "ml-100k, cache: found" in caplog.text
    assert (again.checksum, again.titles, again.genres) == (data.checksum, data.titles, data.genres)


def grouplens_folder(root):
    (root / "ml-100k").mkdir(parents=True)
    for name, content in grouplens_files().items():
        (root / "ml-100k" / name).write_bytes(content)


def recbole_folder(root):
    (root / "ml-100k").mkdir(parents=True)
    for name, content in recbole_files().items():
        (root / "ml-100k" / name).write_bytes(content)


def grouplens_zip(root):
    root.mkdir()
    (root / "ml-100k.zip").write_bytes(zipped(grouplens_files(), "ml-100k/"))


@pytest.mark.parametrize("lay_out", [grouplens_folder, recbole_folder, grouplens_zip])
def test_every_form_of_ml_100k_gives_the_same(lay_out, tiny_films, tmp_path, cache):
    lay_out(tmp_path / "mine")
    data = load_dataset("ml-100k", data_dir=tmp_path / "mine")
    assert [s.tolist() for s in data.sequences] == [FILM_ITEMS[:4], FILM_ITEMS[4:]]     # ties in the order of the file
    assert data.titles == TITLES
    assert data.genres == ((), *(tuple(film[3]) for film in FILMS))
    assert not cache.exists()       # what the user keeps is not kept twice


def test_environment_names_the_data_directory(tiny_films, tmp_path, monkeypatch):
    grouplens_folder(tmp_path / "mine")
    monkeypatch.setenv("DIFFUREC_DATA_DIR", str(tmp_path / "mine"))
    assert load_dataset("ml-100k").source == "ml-100k/u.data in the data directory"


def test_unknown_name(refused):
    with refused("an unknown data set", ValueError, match="no data set 'ml-2m'.*ml-100k, ml-1m, amazon-beauty, amazon-toys"):
        load_dataset("ml-2m")


def test_a_data_directory_that_is_none(refused, tmp_path, monkeypatch):
    with refused("data_dir: a directory that is not there", FileNotFoundError,
                 match="data_dir is '.*nowhere', but there is no such directory"):
        load_dataset("ml-1m", data_dir=tmp_path / "nowhere")
    monkeypatch.setenv("DIFFUREC_DATA_DIR", str(tmp_path / "nowhere"))
    with refused("DIFFUREC_DATA_DIR: a directory that is not there", FileNotFoundError, match="DIFFUREC_DATA_DIR is"):
        load_dataset("ml-1m")


# Files in the data directory that are not what they should be.

def put(root, relative, content):
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_pickle_with_another_checksum_is_not_opened(refused, tiny_pickle, tmp_path, monkeypatch):
    path = put(tmp_path / "mine", "ml-1m/dataset.pkl", tiny_pickle + b"x")
    monkeypatch.setattr(published, "read_pickle", None)
    with refused("a pickle with another checksum", DataError) as told:
        load_dataset("ml-1m", data_dir=tmp_path / "mine")
    assert published.sha256(path) in str(told.value) and KNOWN["ml-1m"].sha256 in str(told.value)
    assert "was left as it is" in str(told.value)
    assert path.read_bytes() == tiny_pickle + b"x"


@pytest.mark.parametrize("content", ["truncated", "not a pickle", "other keys"])
def test_a_damaged_pickle(refused, content, tiny_pickle, tmp_path):
    path = put(tmp_path, "dataset.pkl", {
        "truncated": tiny_pickle[:-20], "not a pickle": b"hello", "other keys": pickle.dumps({"train": {}})}[content])
    with refused(None, DataError, match="damaged or not laid out as published"):
        published.read_pickle(path)


@pytest.mark.parametrize("what, val, sentence", [
    ("a user fewer", {0: [4], 1: [2]}, "no dicts of the same users"),
    ("another user", {0: [4], 1: [2], 3: [3]}, "no dicts of the same users"),
    ("a list for a dict", [[4], [2], [3]], "no dicts of the same users"),
    ("a number for a list", {0: [4], 1: [2], 2: 3}, "no list of whole numbers"),
    ("a string for a list", {0: [4], 1: [2], 2: "3"}, "no list of whole numbers"),
    ("a string for an item", {0: [4], 1: [2], 2: ["3"]}, "no list of whole numbers"),
    ("a list for an item", {0: [4], 1: [2], 2: [[3]]}, "no list of whole numbers"),
    ("an item beyond 32 bits", {0: [4], 1: [2], 2: [2**32 + 3]}, "OverflowError"),
    ("3.0 for an item", {0: [4], 1: [2], 2: [3.0]}, "instruction BINFLOAT"),
])
def test_a_pickle_of_another_layout(refused, what, val, sentence, tmp_path):
    path = put(tmp_path, "dataset.pkl", pickle.dumps({**TINY, "val": val}))
    with refused(f"a pickle of another layout: in val {what}", DataError,
                 match=f"dataset.pkl is .*not laid out as published.*{sentence}"):
        published.read_pickle(path)


def within(value, depth, pack):
    for _ in range(depth):
        value = pack(value)
    return value


def nested_tuples(depth):
    """{the tuple of a tuple of a tuple ...: 1}: the unpickler would hash it."""
    return b"\x80\x04}(" + b")" + b"\x85" * depth + b"K\x01u."


@pytest.mark.parametrize("what, content, instruction", [
    ("tuples a million deep", nested_tuples(1_000_000), "EMPTY_TUPLE"),                     # crashed the process
    ("a list that grows to 2^60 entries",
     pickle.dumps({**TINY, "train": {0: within([], 60, lambda x: [x, x])}}), "BINGET"),     # had no end
    ("a list that holds itself", b"\x80\x04]\x94h\x00a.", "BINGET"),
    ("a global", b"\x80\x04cos\nmkdir\n.", "global os.mkdir"),
    ("a string of protocol 0", b"(S'x'\nios\nmkdir\n.", "STRING"),
    ("an instance of a class", b"\x80\x04(ios\nmkdir\n.", "INST"),
    ("a memo of 2^31 entries", b"\x80\x02]r\xff\xff\xff\x7f.", "room beyond its own"),      # asked for 32 GB
    ("a frame of 2^64 bytes", b"\x80\x04\x95" + b"\xff" * 8 + b"}.", ""),
    ("a number that is cut off", b"\x80\x04\x8a\xff" + b"\x01" * 3, ""),
    ("lists a million deep", b"\x80\x04" + b"]" * 1_000_000 + b"a" * 999_999 + b".", ""),
    ("an unknown instruction", b"\x80\x04\xff.", "instruction 0xff"),
    ("nothing", b"", ""),
], ids=range(12))
def test_a_hostile_pickle_is_refused(refused, what, content, instruction, tmp_path):
    with refused(f"a hostile pickle: {what}", DataError,
                 match=f"dataset.pkl is damaged or not laid out as published.*{instruction}"):
        published.read_pickle(put(tmp_path, "dataset.pkl", content))


@pytest.mark.parametrize("code", [240, 24_000, 24_000_000])
def test_a_pickle_cannot_go_around_the_refusal_by_an_extension_code(refused, code, tmp_path):
    copyreg.add_extension(os.mkdir.__module__, "mkdir", code)
    try:
        content = pickle.dumps({**TINY, "umap": Payload(tmp_path / "executed")}, 2)
        pickle.loads(content)       # now the registry has the function in its cache, too
        (tmp_path / "executed").rmdir()
        with refused(f"a hostile pickle: a function by its extension code {code:,}", DataError,
                     match="instruction EXT[124], .*: it was refused and nothing was executed"):
            published.read_pickle(put(tmp_path, "dataset.pkl", content))
    finally:
        copyreg.remove_extension(os.mkdir.__module__, "mkdir", code)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_plain_pickles_of_every_binary_protocol_are_read(protocol, tmp_path):
    many = {user: [user + 1, 70_000] for user in range(300)}       # a memo beyond one byte, numbers beyond two
    wide = {"train": many, "val": {user: [1] for user in many}, "test": {user: [2] for user in many}}
    fields = published.read_pickle(put(tmp_path, "dataset.pkl", pickle.dumps(wide, protocol)))
    assert fields["items"].tolist() == [item for user in many for item in (*many[user], 1, 2)]
    assert fields["offsets"].tolist() == list(range(0, 1201, 4)) and fields["num_items"] == 70_000


class Payload:
    """Unpickled by the ordinary unpickler this creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_a_global_is_refused_and_never_executed(refused, tmp_path, monkeypatch):
    content = pickle.dumps({**TINY, "umap": Payload(tmp_path / "executed")})
    path = put(tmp_path / "mine", "ml-1m/dataset.pkl", content)
    pretend(monkeypatch, "ml-1m", tiny_dataset(), sha256=published.sha256(path))
    with refused("a hostile pickle in the data directory", DataError,
                 match=r"global (posix|nt)\.mkdir: it was refused and nothing was executed"):
        load_dataset("ml-1m", data_dir=tmp_path / "mine")
    assert not (tmp_path / "executed").exists()
    pickle.loads(content)       # the proof that the payload works
    assert (tmp_path / "executed").exists()


def test_a_pickle_with_a_persistent_id_is_refused(refused, tmp_path):
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return "outside" if value == "umap" else None

    with open(tmp_path / "dataset.pkl", "wb") as file:
        Pickler(file).dump(TINY)
    with refused("a hostile pickle: an object outside", DataError, match="outside object 'outside': it was refused"):
        published.read_pickle(tmp_path / "dataset.pkl")


@pytest.mark.parametrize("file, what, change, sentence", [
    ("u.data", "its end cut off, a time with it", lambda b: b[:-5], "must be columns of numbers"),
    ("u.data", "its last digit cut off", lambda b: b[:-2], "checksum is"),
    ("u.data", "an id changed", lambda b: b.replace(b"1\t3\t4\t10", b"1\t2\t4\t10"),
     f"checksum is {SUM}, expected was {SUM}"),
    ("u.data", "a time that is no number", lambda b: b.replace(b"\t10\n", b"\tsoon\n"), "must be columns of numbers"),
    ("u.data", "empty", lambda b: b"", "damaged"),
    ("u.item", "its end cut off, flags with it", lambda b: b[:-30], "neither 0 nor 1"),
    ("u.item", "its last flag cut off", lambda b: b[:-2], "neither 0 nor 1"),
    ("u.item", "its last line cut off", lambda b: b"\n".join(b.split(b"\n")[:-2]), "item ids must lie within"),
    ("u.item", "tabs between its columns", lambda b: b.replace(b"|", b"\t"), "columns, not 24"),
])
def test_damaged_grouplens_files(refused, file, what, change, sentence, tiny_films, tmp_path):
    grouplens_folder(tmp_path / "mine")
    path = tmp_path / "mine" / "ml-100k" / file
    path.write_bytes(change(path.read_bytes()))
    with refused(f"damaged files of GroupLens: {file}: {what}", DataError, match=sentence):
        load_dataset("ml-100k", data_dir=tmp_path / "mine")


@pytest.mark.parametrize("file, what, change, sentence", [
    ("ml-100k.inter", "no column timestamp", lambda b: b.replace(b"timestamp", b"when"),
     "must be columns of numbers.*timestamp"),
    ("ml-100k.item", "its last genre cut in two", lambda b: b[:-3], r"genres of film 4 read \('Dra',\)"),
    ("ml-100k.item", "its last genre cut off", lambda b: b[:-7], r"genres of film 4 read \(\)"),
    ("ml-100k.item", "no column release_year", lambda b: b.replace(b"release_year", b"year"), "no column 'release_year'"),
    ("ml-100k.item", "a film numbered 7 of 4", lambda b: b.replace(b"\n2\t", b"\n7\t"), "not numbered 1, 2, 3"),
])
def test_damaged_recbole_files(refused, file, what, change, sentence, tiny_films, tmp_path):
    recbole_folder(tmp_path / "mine")
    path = tmp_path / "mine" / "ml-100k" / file
    path.write_bytes(change(path.read_bytes()))
    with refused(f"damaged files of RecBole: {file}: {what}", DataError, match=sentence):
        load_dataset("ml-100k", data_dir=tmp_path / "mine")


def test_a_missing_companion(refused, tiny_films, tmp_path):
    grouplens_folder(tmp_path / "a")
    (tmp_path / "a/ml-100k/u.item").unlink()
    with refused("u.data without u.item", DataError, match="u.item is missing"):
        load_dataset("ml-100k", data_dir=tmp_path / "a")
    put(tmp_path / "b", "ml-100k.zip", zipped({"u.data": grouplens_files()["u.data"]}, "ml-100k/"))
    with refused("a zip without u.item", DataError, match="u.item is missing"):
        load_dataset("ml-100k", data_dir=tmp_path / "b")


def test_a_truncated_zip(refused, tiny_films, tmp_path):
    put(tmp_path, "ml-100k.zip", zipped(grouplens_files(), "ml-100k/")[:-40])
    with refused("a zip that is cut off", DataError, match="damaged or no zip file"):
        load_dataset("ml-100k", data_dir=tmp_path)


def test_ids_beyond_their_width_are_not_taken_for_others(refused, tiny_films, tmp_path):
    """2^32 + 3 is 3 when cut to 32 bits, and a time of 2^53 + 1 is 2^53 as a float."""
    grouplens_folder(tmp_path / "mine")
    path = put(tmp_path, "mine/ml-100k/u.data", grouplens_files()["u.data"].replace(b"1\t3\t", b"1\t4294967299\t"))
    with refused("u.data: an item of 4294967299, 2^32 + 3", DataError,
                 match="item ids must lie within 1..4, but 1 do not, the first of them 4294967299"):
        load_dataset("ml-100k", data_dir=tmp_path / "mine")
    for user in (b"9007199254740993", b"99999999999", b"99999999999999999999"):     # too many to count up to
        path.write_bytes(grouplens_files()["u.data"].replace(b"1\t3\t", user + b"\t3\t"))
        with refused(f"u.data: a user of {user.decode()}", DataError, match="not numbered 1, 2, 3|must be columns of numbers"):
            load_dataset("ml-100k", data_dir=tmp_path / "mine")
    late, early = b"9007199254740993", b"9007199254740992"
    path.write_bytes(b"".join(b"1\t%d\t4\t%s\n" % row for row in ((1, late), (2, early), (3, late + b".0"))))
    items = published.read_grouplens(lambda name: (tmp_path / "mine/ml-100k" / name).read_bytes())["items"]
    assert items.tolist() == [2, 1, 3]


@pytest.mark.parametrize("table, column, twin", [
    ("inter", b"rating:float", b"item_id:float"), ("inter", b"rating:float", b"user_id:token"),
    ("item", b"movie_title:token_seq", b"item_id:token")])
def test_columns_that_stand_twice_in_the_recbole_files(refused, table, column, twin, tiny_films, tmp_path):
    recbole_folder(tmp_path / "mine")
    path = tmp_path / "mine" / "ml-100k" / f"ml-100k.{table}"
    path.write_bytes(path.read_bytes().replace(column, twin))
    what = f"ml-100k.{table}: a column {twin.decode()} more in the place of {column.decode()}"
    with refused(f"damaged files of RecBole: {what}", DataError,
                 match=f"column {twin.decode().split(':')[0]} stands there twice|no column"):
        load_dataset("ml-100k", data_dir=tmp_path / "mine")


def bomb(size=300 << 20):
    """A zip of 300 kB with a u.data of 300 MB."""
    return zipped({**grouplens_files(), "u.data": bytes(size)}, "ml-100k/")


def encrypted():
    """All headers, of each file and in the directory, say that the file is encrypted."""
    content = zipped(grouplens_files(), "ml-100k/")
    return content.replace(b"PK\3\4\x14\0\0", b"PK\3\4\x14\0\1").replace(
        b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1")


def packed_by(method):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in grouplens_files().items():
            archive.writestr("ml-100k/" + name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("what, make, sentence", [
    ("a file of 300 MB in 300 kB", bomb,
     "u.data holds more than 16,777,216 bytes, far more than what is published: it was not read"),
    ("a file of 300 MB in 300 kB, cut off", lambda: bomb()[:-40], "damaged or no zip file"),
    ("too large", lambda: bytes(published.LARGEST + 1), "ml-100k.zip holds more than 16,777,216 bytes"),
    ("encrypted", encrypted, r"damaged or no zip file \(RuntimeError: File 'ml-100k/u.data' is encrypted"),
    ("packed by LZMA", lambda: packed_by(zipfile.ZIP_LZMA), "u.data is packed in another way than the published file"),
    ("packed by bzip2", lambda: packed_by(zipfile.ZIP_BZIP2), "u.data is packed in another way than the published file"),
    ("a line of a million columns", lambda: zipped({**grouplens_files(), "u.item": b"|" * (1 << 20)}, "ml-100k/"),
     "u.item .* more than 100 columns"),
    ("the end alone", lambda: b"PK\5\6" + b"\xff" * 18, "damaged or no zip file"),
], ids=["bomb", "half a bomb", "too large", "encrypted", "lzma", "bzip2", "columns", "end only"])
def test_hostile_zips(refused, what, make, sentence, tiny_films, tmp_path):
    path = put(tmp_path, "ml-100k.zip", make())
    before = path.stat()
    tracemalloc.start()
    try:
        with refused(f"a hostile zip: {what}", DataError, match=sentence) as told:
            load_dataset("ml-100k", data_dir=tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 150e6
    finally:
        tracemalloc.stop()
    assert "was left as it is" in str(told.value) and "\n" not in str(told.value)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_a_zip_whose_directory_lies_about_a_size(refused, tiny_films, tmp_path):
    files = grouplens_files()
    content = zipped({"u.item": files["u.item"], "u.data": bytes(100 << 20)}, "ml-100k/")
    at = content.rindex(b"PK\1\2") + 24
    put(tmp_path, "ml-100k.zip", content[:at] + (200).to_bytes(4, "little") + content[at + 4:])     # 200 when unpacked
    tracemalloc.start()
    try:
        with refused("a hostile zip: its directory lies about a size", DataError, match="damaged or no zip file .*CRC"):
            load_dataset("ml-100k", data_dir=tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 80e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("relative", ["ml-1m/dataset.pkl", "ml-1m.npz"])
def test_files_that_are_none(refused, relative, tiny_pickle, tmp_path):
    path = tmp_path / relative
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(path)
    with refused(f"{relative}: a link to itself", DataError, match="cannot be used and was left as it is. .*symbolic links"):
        load_dataset("ml-1m", data_dir=tmp_path)
    path.unlink()
    os.mkfifo(path)
    with refused(f"{relative}: a pipe", DataError, match="cannot be used and was left as it is. .* is no file"):
        load_dataset("ml-1m", data_dir=tmp_path)
    path.unlink()
    path.mkdir()
    with refused(f"{relative}: a directory", DataError, match="cannot be used and was left as it is"):
        load_dataset("ml-1m", data_dir=tmp_path)


@pytest.mark.parametrize("what, root", [
    ("a name of 300 characters", "x" * 300), ("a name of 5,000 parts", "x/" * 5000), ("a link to itself", "loop"),
    ("a directory below a link to itself", "loop/below")])
def test_a_data_directory_whose_name_leads_nowhere(refused, what, root, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with refused(f"data_dir: {what}", FileNotFoundError, match="data_dir is '.*', but there is no such directory"):
        load_dataset("ml-1m", data_dir=tmp_path / root)


@pytest.mark.parametrize("folder", ["x" * 300, "loop"])
def test_a_cache_whose_name_leads_nowhere(folder, tiny_pickle, serve, tmp_path, monkeypatch, caplog):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    monkeypatch.setenv("DIFFUREC_CACHE_DIR", str(tmp_path / folder))
    serve("ml-1m", tiny_pickle)
    assert load_dataset("ml-1m").items.tolist() == TINY_ITEMS
    assert "could not be kept in the cache" in caplog.text


# Downloads, from a server on this machine.

def test_download_goes_into_the_cache(tiny_pickle, serve, cache, caplog, tmp_path):
    caplog.set_level(logging.INFO, "diffurec")
    serve("ml-1m", tiny_pickle)
    data = load_dataset("ml-1m")
    assert data.items.tolist() == TINY_ITEMS and data.source == KNOWN["ml-1m"].url
    assert everything_below(cache) == ["ml-1m.npz"] and not everything_below(tmp_path / "tmp")
    assert [r.message.split(":")[0] for r in caplog.records] == [
        "ml-1m, data directory", "ml-1m, cache", "ml-1m, original address", "ml-1m"]
    again = load_dataset("ml-1m")       # the server is gone
    assert again.checksum == data.checksum and again.source == data.source


def test_download_of_the_grouplens_zip(tiny_films, serve, cache):
    serve("ml-100k", zipped(grouplens_files(), "ml-100k/"))
    assert load_dataset("ml-100k").titles == TITLES
    assert load_dataset("ml-100k").titles == TITLES     # from the cache
    assert load_dataset("ml-100k").genres[4] == ("Drama",)


@pytest.fixture
def unobtained(told):
    """unobtained(what, error): a row of what is said of the original address, beside the other sources."""
    def row(what, error):
        line, = (line for line in str(error).splitlines() if "original address" in line)
        told(what, re.sub(r"http://127.0.0.1:\d+/|(?<=/)diffurec-\w+/", "", line))

    return row


def test_truncated_download(unobtained, tiny_pickle, serve, cache, tmp_path):
    serve("ml-1m", tiny_pickle[:50], length=len(tiny_pickle))
    with pytest.raises(DataError, match=f"or not all of it .*50 bytes read, {len(tiny_pickle) - 50} more expected") as error:
        load_dataset("ml-1m")
    unobtained("a download that is cut off", error.value)
    assert not everything_below(tmp_path)


@pytest.mark.parametrize("what, content, length, sentence", [
    ("whose length is no number", b"x", "many", "could not be downloaded.*invalid literal"),
    ("whose length has 5,000 digits", b"x", "9" * 5000, "could not be downloaded"),
    ("that is too large", bytes(published.LARGEST + 1), None, "could not be downloaded.*it gives more than 16,777,216 bytes"),
])
def test_downloads_with_a_length_that_is_none(unobtained, what, content, length, sentence, tiny_pickle, serve, tmp_path):
    serve("ml-1m", content, length=length)
    with pytest.raises(DataError, match=sentence) as error:
        load_dataset("ml-1m")
    unobtained(f"a download {what}", error.value)
    assert not everything_below(tmp_path)


def test_download_that_does_not_match_is_kept_aside(unobtained, tiny_pickle, serve, cache, tmp_path):
    other = tiny_pickle + b"more"
    serve("ml-1m", other)
    with pytest.raises(DataError) as told:
        load_dataset("ml-1m")
    aside = cache / "ml-1m.pkl.mismatch"
    assert everything_below(tmp_path) == ["cache/ml-1m.pkl.mismatch"] and aside.read_bytes() == other
    for part in (published.sha256(aside), KNOWN["ml-1m"].sha256, str(aside)):
        assert part in str(told.value)
    unobtained("a download with another checksum", told.value)


def test_zip_that_does_not_match_is_kept_aside_and_the_wheel_is_tried(unobtained, tiny_films, serve, cache, no_pip):
    files = grouplens_files()
    files["u.data"] = files["u.data"].replace(b"1\t3\t4\t10", b"1\t2\t4\t10")
    serve("ml-100k", zipped(files, "ml-100k/"))
    with pytest.raises(DataError) as told:
        load_dataset("ml-100k")
    assert KNOWN["ml-100k"].checksum in str(told.value) and "No matching distribution" in str(told.value)
    assert everything_below(cache) == ["ml-100k.zip.mismatch"]
    unobtained("a download with other sequences", told.value)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupted_download_leaves_nothing(error, tiny_pickle, serve, tmp_path, monkeypatch):
    class Bar(published.tqdm):
        def update(self, n=1):
            assert everything_below(tmp_path / "tmp")       # the download is under way
            raise error

    serve("ml-1m", tiny_pickle)
    monkeypatch.setattr(published, "tqdm", Bar)
    with pytest.raises(error):
        load_dataset("ml-1m")
    assert not list((tmp_path / "tmp").iterdir()) and not everything_below(tmp_path)


def test_download_shows_progress_on_stderr(tiny_pickle, serve, capsys):
    serve("ml-1m", tiny_pickle)
    load_dataset("ml-1m")
    out, err = capsys.readouterr()
    assert "dataset.pkl" in err and "100%" in err and out == ""


def test_no_network_names_every_source_and_what_to_do(no_pip, cache, told, unobtained):
    with pytest.raises(DataError) as error:
        load_dataset("ml-100k")
    lines = str(error.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:5]] == [
        "data directory", "cache", "original address", "RecBole wheel"]
    assert "could not be downloaded" in lines[3] and "Connection refused" in lines[3] and len(lines[3]) < 200
    assert "No matching distribution" in lines[4] and "DIFFUREC_DATA_DIR" in lines[5] and not cache.exists()
    unobtained("no network", error.value)
    for source, line in (("no data directory", lines[1]), ("no cache", lines[2]), ("no package index", lines[4]),
                         ("no source that has the data set", f"{lines[0]} ... {lines[5]}")):
        told(source, line)


def test_address_that_answers_404(unobtained, serve, tiny_pickle, tmp_path):
    serve("ml-1m", tiny_pickle, status=404)
    with pytest.raises(DataError, match="could not be downloaded, .*404 Client Error: Not Found") as error:
        load_dataset("ml-1m")
    unobtained("an address that answers 404", error.value)
    assert not everything_below(tmp_path)


# The wheel, with a pip that only lays a small one down.

def test_wheel_is_read_without_being_installed(tiny_films, monkeypatch, cache, tmp_path):
    def run(command, **_):
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert {"--no-deps", "--only-binary=:all:", "recbole==1.2.1"} <= set(command)
        folder = Path(command[command.index("--dest") + 1])
        (folder / "recbole-1.2.1-py3-none-any.whl").write_bytes(zipped(recbole_files(), published.WHEEL_FOLDER))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(published.subprocess, "run", run)
    data = load_dataset("ml-100k")
    assert data.items.tolist() == FILM_ITEMS and data.titles == TITLES
    assert everything_below(cache) == ["ml-100k.npz"] and not everything_below(tmp_path / "tmp")


# The cache.

def test_the_cache_lies_in_the_checkout_or_with_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert named._cache_dir() == tmp_path / "cache"             # DIFFUREC_CACHE_DIR
    monkeypatch.delenv("DIFFUREC_CACHE_DIR")
    assert named._cache_dir() == Path(__file__).parent.parent / "data" / "cache"
    monkeypatch.setattr(named, "INSTALLED", True)
    outside = named._cache_dir()
    assert outside.name == "diffurec" and outside.is_relative_to(tmp_path / "home")


def read_kept(path):
    return read_saved(path, published.LARGEST)


def with_about(path, change):
    """The file with its JSON part changed."""
    with np.load(path) as arrays:
        arrays = dict(arrays)
    about = json.loads(arrays["about"].tobytes())
    change(about)
    np.savez(path, **{**arrays, "about": np.frombuffer(json.dumps(about).encode(), np.uint8)})


def older_cache(path, titles=("",) * 6, genres=("",) * 6):
    """A cache of format 1, as versions up to 0.2 wrote them."""
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, format_version=np.int64(1), num_items=np.int64(5), items=np.array(TINY_ITEMS, np.int32),
                        offsets=np.array(TINY_OFFSETS), source=np.array("an older one"), titles=np.array(titles),
                        genres=np.array(genres))


def test_a_cache_of_format_1_is_read(tiny_pickle, cache):
    older_cache(cache / "ml-1m.npz", ("", *"abcde"), ("", "x|y", "", "z", "", ""))
    data = load_dataset("ml-1m")
    assert data.items.tolist() == TINY_ITEMS and data.source == "an older one" and data.titles == ("", *"abcde")
    assert data.genres == ((), ("x", "y"), (), ("z",), (), ()) and everything_below(cache) == ["ml-1m.npz"]


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty", "a pickle inside", "another version"])
def test_damaged_cache_is_set_aside_and_the_next_source_tried(damage, tiny_pickle, serve, cache, caplog):
    path = cache / "ml-1m.npz"
    tiny_dataset().save(path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-30])
    elif damage == "changed":
        Dataset("ml-1m", 5, np.array(TINY_ITEMS[::-1]), np.array(TINY_OFFSETS)).save(path)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "a pickle inside":
        np.savez(path, format_version=1, num_items=5, items=np.array([{}], object), offsets=np.array([0, 1]))
    else:
        with_about(path, lambda about: about.update(format_version=99))
    before = path.read_bytes()
    serve("ml-1m", tiny_pickle)
    assert load_dataset("ml-1m").items.tolist() == TINY_ITEMS
    assert everything_below(cache) == ["ml-1m.npz", "ml-1m.npz.damaged"]
    assert (cache / "ml-1m.npz.damaged").read_bytes() == before
    assert str(path) in caplog.text and "set aside" in caplog.text
    assert read_kept(path)["items"].tolist() == TINY_ITEMS


def with_array(path, name, shape, kind, follows=b""):
    """A cache file in which the header of one array says `shape` and `kind`, whatever follows it."""
    older_cache(path)
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": kind, "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in {**members, f"{name}.npy": header.getvalue() + follows}.items():
            archive.writestr(member, content)


@pytest.mark.parametrize("what, name, shape, kind, follows, sentence", [
    ("10^15 items", "items", (10**15,), "<i4", b"", "claims 1000000000000000 entries of 4 bytes, but 0 follow"),
    ("10^15 offsets", "offsets", (10**6, 10**9), "<i8", b"1234",
     "claims 1000000000000000 entries of 8 bytes, but 4 follow"),
    ("10^15 empty titles", "titles", (10**15,), "<U0", b"",
     "claims 1000000000000000 entries of 0 bytes"),     # needs no memory, and no end
    ("a title of 10^8 characters", "titles", (1,), "<U100000000", b"", "claims 1 entries of 400000000 bytes, but 0 follow"),
    ("-1 items", "items", (-1,), "<i4", b"", "claims -1 entries"),
    ("an item that is a Python object", "items", (1,), "|O", b"12345678", "Object arrays cannot be loaded"),
    ("100 MB of items", "items", (100 << 20,), "|i1", bytes(100 << 20), "holds more than 16,777,216 bytes"),
    ("two numbers of items", "num_items", (2,), "<i8", bytes(16), "TypeError"),
    ("a table of genres", "genres", (1, 1), "<U1", b"x\0\0\0", "AttributeError"),
])
def test_cache_headers_that_claim_too_much(refused, what, name, shape, kind, follows, sentence, tiny_pickle, tmp_path):
    path = tmp_path / "ml-1m.npz"
    with_array(path, name, shape, kind, follows)
    with pytest.raises(DataError, match=sentence):
        read_kept(path)
    with refused(f"ml-1m.npz: {what}", DataError, match=f"was left as it is.*{sentence}"):
        load_dataset("ml-1m", data_dir=tmp_path)


# Damage by chance.

def hurt(content, chance):
    """`content` cut off, or with a few bits and bytes changed, taken out or put in."""
    content, kind = bytearray(content), chance.random()
    if kind < 0.2:
        return bytes(content[:chance.randrange(len(content))])
    for _ in range(chance.choice((1, 2, 5))):
        at = chance.randrange(len(content))
        if kind < 0.6:
            content[at] ^= 1 << chance.randrange(8)
        elif kind < 0.8:
            content[at] = chance.choice(b"\0\xff\x80\n\r\t,.-\"'")
        else:
            content[at:at + chance.randrange(4)] = chance.randbytes(chance.randrange(4))
            content = content or bytearray(b"x")
    return bytes(content)


def cache_content(path):
    tiny_dataset(titles=("a",) * 6, genres=(("x",),) * 6).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["pickle", "zip", "cache", *grouplens_files(), *recbole_files()])
def test_whatever_is_damaged_only_a_data_error_comes(kind, tmp_path):
    files = {**grouplens_files(), **recbole_files()}
    content, read = {
        "pickle": (pickle.dumps(TINY), published.read_pickle),
        "zip": (zipped(grouplens_files(), "ml-100k/"), published.read_grouplens_zip),
        "cache": (cache_content(tmp_path / "cache.npz"), read_kept),
    }.get(kind) or (files[kind], lambda path: (
        published.read_grouplens if kind in grouplens_files() else published.read_recbole)(
            lambda name: path.read_bytes() if name == kind else files[name]))
    chance, outcomes = random.Random(kind), set()
    for _ in range(150):
        path = put(tmp_path, "damaged", hurt(content, chance))
        try:
            Dataset(**{**read(path), "name": "x"})
            outcomes.add("read")        # a bit in a title, say: load_dataset compares checksums
        except (DataError, ValueError) as error:
            assert isinstance(error, DataError) or str(error).startswith("x: ")        # the Dataset's own sentences
            assert "\n" not in str(error)
            outcomes.add("told")
    assert "told" in outcomes


def test_damaged_cache_file_in_the_data_directory_is_an_error(refused, tiny_pickle, tmp_path):
    path = tmp_path / "ml-1m.npz"
    Dataset("ml-1m", 5, np.array(TINY_ITEMS[::-1]), np.array(TINY_OFFSETS)).save(path)
    with refused("ml-1m.npz: other sequences", DataError, match=f"checksum is {SUM}, expected was {SUM}"):
        load_dataset("ml-1m", data_dir=tmp_path)
    assert path.exists()


def test_cache_below_a_file_does_not_cost_the_data(tiny_pickle, serve, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DIFFUREC_CACHE_DIR", str(tmp_path / "file" / "cache"))
    serve("ml-1m", tiny_pickle)
    assert load_dataset("ml-1m").items.tolist() == TINY_ITEMS
    assert "could not be kept in the cache" in caplog.text and "DIFFUREC_CACHE_DIR" in caplog.text
    assert everything_below(tmp_path) == ["file"]


@pytest.mark.parametrize("call, code", [("replace", errno.EROFS), ("fsync", errno.ENOSPC)])
def test_full_or_read_only_cache_leaves_nothing(call, code, tiny_pickle, serve, cache, monkeypatch, caplog):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    serve("ml-1m", tiny_pickle)
    monkeypatch.setattr(saved.os, call, fail)
    assert load_dataset("ml-1m").items.tolist() == TINY_ITEMS
    assert os.strerror(code) in caplog.text and not everything_below(cache)


def test_disk_that_fills_while_the_cache_is_written(tiny_pickle, serve, cache, monkeypatch, caplog):
    def half(file, **_):
        file.write(b"PK half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    serve("ml-1m", tiny_pickle)
    monkeypatch.setattr(saved.np, "savez_compressed", half)
    assert load_dataset("ml-1m").items.tolist() == TINY_ITEMS
    assert "No space left" in caplog.text and not everything_below(cache)


def test_a_failed_write_spares_the_file_that_is_there(tmp_path, monkeypatch):
    path = tmp_path / "ml-1m.npz"
    tiny_dataset().save(path)
    before = path.read_bytes()
    monkeypatch.setattr(saved.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tiny_dataset(source="another").save(path)
    assert path.read_bytes() == before and everything_below(tmp_path) == ["ml-1m.npz"]


# The command line.

def test_command_line(tiny_films, tmp_path, monkeypatch, capsys):
    grouplens_folder(tmp_path / "mine")
    monkeypatch.setenv("DIFFUREC_DATA_DIR", str(tmp_path / "mine"))
    assert fetch.main(["ml-100k"]) == 0
    assert "2 users, 4 items, 7 interactions" in capsys.readouterr().out
    assert fetch.main(["ml-1m"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "ml-1m could not be obtained" in err and "Traceback" not in err
    assert fetch.main(["ml-2m"]) == 1


@pytest.mark.parametrize("error, line", [
    (MemoryError(), "There is not enough memory to load this.\n"), (OSError("No disk."), "No disk.\n"),
    (DataError("It is damaged."), "It is damaged.\n")])
def test_command_line_ends_in_one_line(error, line, monkeypatch, capsys):
    def fail(_):
        raise error
    monkeypatch.setattr(fetch, "load_dataset", fail)
    assert fetch.main(["ml-1m"]) == 1
    assert capsys.readouterr() == ("", line)

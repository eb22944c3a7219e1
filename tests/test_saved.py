"""Dataset.save and load: all of it comes back as it was, and a damaged file is one sentence."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffurec import DataError, Dataset, load_interactions
from diffurec.data import published

FIELDS = [field.name for field in dataclasses.fields(Dataset)]
ITEMS, OFFSETS = np.array([1, 2, 3, 3, 2, 1, 2]), np.array([0, 3, 7])


def small(**more):
    return Dataset("small", 3, ITEMS, OFFSETS, **more)


FULL = dict(titles=("", "A tea", "jäm\0", "oil | rye"), genres=((), ("x|y", "z"), (), ("z",)), source="a test",
            notes=("One was dropped.",), user_ids=("bo", "007"), item_ids=(None, 7, 2**70, "7"), numbered_as="another")


def assert_same(one, other):
    for name in FIELDS:
        first, second = getattr(one, name), getattr(other, name)
        if isinstance(first, np.ndarray):
            assert np.array_equal(first, second) and first.dtype == second.dtype, name
        else:
            assert first == second and type(first) is type(second), name
    for ids in ("user_ids", "item_ids"):
        assert list(map(type, getattr(one, ids) or ())) == list(map(type, getattr(other, ids) or ())), ids
    assert (one.checksum, one.numbering) == (other.checksum, other.numbering)


@pytest.mark.parametrize("more", [{}, FULL], ids=["arrays alone", "everything"])
def test_all_of_it_comes_back(tmp_path, more):
    """A title that ends in NUL, ids of both kinds side by side, and one of 71 bits: numpy's text arrays would lose them."""
    data = small(**more)
    data.save(tmp_path / "folder" / "mine.npz")
    assert_same(data, Dataset.load(tmp_path / "folder" / "mine.npz"))
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["mine.npz"]
    with np.load(tmp_path / "folder" / "mine.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "iu" for name in arrays)


identities = st.one_of(st.lists(st.text(), min_size=3, max_size=3, unique=True),
                       st.lists(st.integers(), min_size=3, max_size=3, unique=True))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=identities, titles=st.lists(st.text(), min_size=3, max_size=3), name=st.text(), notes=st.lists(st.text()))
def test_whatever_the_texts_are(tmp_path, ids, titles, name, notes):
    data = dataclasses.replace(small(), name=name, item_ids=(None, *ids), titles=("", *titles), notes=tuple(notes))
    data.save(tmp_path / "mine.npz")
    assert_same(data, Dataset.load(tmp_path / "mine.npz"))
    assert data.item_numbers == {identity: number for number, identity in enumerate(ids, 1)}


def test_numbers_of_ids():
    data = small(**FULL)
    assert data.item_numbers == {7: 1, 2**70: 2, "7": 3} and data.user_numbers == {"bo": 0, "007": 1}
    assert data.item_numbers is data.item_numbers and data.user_numbers is data.user_numbers
    assert small().item_numbers == {1: 1, 2: 2, 3: 3} and small().user_numbers == {0: 0, 1: 1}       # the numbers are the ids


def test_an_id_of_two_is_refused(refused):
    with refused("an item id that two items have", ValueError, "^item_ids hold 'a' twice, as 1 and 3;"):
        small(item_ids=(None, "a", "b", "a")).item_numbers
    with refused("a user id that two users have", ValueError, "^user_ids of small hold 5 twice, as 0 and 1;"):
        small(user_ids=(5, 5)).user_numbers


def test_numpys_ids_are_kept_as_pythons(tmp_path):
    data = small(item_ids=(None, *np.array([30, 20, 10])), user_ids=tuple(np.array(["a", "b"])))
    data.save(tmp_path / "mine.npz")
    again = Dataset.load(tmp_path / "mine.npz")
    assert again.item_ids == (None, 30, 20, 10) and type(again.item_ids[1]) is int and again.user_ids == ("a", "b")
    assert again.numbering == data.numbering


def test_ids_that_a_file_cannot_keep_are_refused_and_nothing_is_written(tmp_path, refused):
    with refused("saving ids that are bytes", ValueError, "^The id b'a' is a bytes, and a file keeps ids that"):
        small(item_ids=(None, b"a", b"b", b"c")).save(tmp_path / "mine.npz")
    assert not list(tmp_path.iterdir())


def test_a_file_of_ones_own_is_saved_and_read(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,timestamp\n" + "".join(f"u{u},{i:03},{i}\n" for u in "ab" for i in (3, 1, 2)))
    data = load_interactions(tmp_path / "a.csv")
    data.save(tmp_path / "a.npz")
    again = Dataset.load(tmp_path / "a.npz")
    assert_same(data, again)
    assert again.item_ids == (None, "003", "001", "002") and again.notes == data.notes


@pytest.mark.parametrize("what, change, words", [
    ("of format 99", lambda a: a.update(format_version=99), "has format 99; this version of diffurec reads 2"),
    ("without a number of items", lambda a: a.pop("num_items"), "KeyError: 'num_items'"),
    ("num_items that are text", lambda a: a.update(num_items="3"), "num_items must be a whole number"),
    ("titles that are no list", lambda a: a.update(titles={"a": 1}), "titles is no list of str"),
    ("titles that are numbers", lambda a: a.update(titles=[None, 1, 2, 3]), "titles is no list of str"),
    ("too few titles", lambda a: a.update(titles=["", "a"]), "titles must have 4 entries"),
    ("an id that is a list", lambda a: a.update(item_ids=[None, [1], 2, 3]), "item_ids is no list of str or int or float"),
    ("genres that are text", lambda a: a.update(genres=["", "x", "y", "z"]), "genres is no list of list"),
    ("a name that is a number", lambda a: a.update(name=3), "name, source, numbered_as are not all text"),
])
def test_a_damaged_file_is_one_sentence(tmp_path, refused, what, change, words):
    path = tmp_path / "mine.npz"
    small(**FULL).save(path)
    with np.load(path) as arrays:
        arrays = dict(arrays)
    about = json.loads(arrays["about"].tobytes())
    change(about)
    np.savez(path, **{**arrays, "about": np.frombuffer(json.dumps(about).encode(), np.uint8)})
    with refused(f"Dataset.load: a file {what}", DataError, words):
        Dataset.load(path)


def test_what_is_no_such_file_is_one_sentence(tmp_path, refused):
    (tmp_path / "text.npz").write_text("no zip")
    with refused("Dataset.load: a text file", DataError, "is no whole file of a data set .BadZipFile"):
        Dataset.load(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with refused("Dataset.load: another .npz", DataError, "is no whole file of a data set .*There is no format_version.npy"):
        Dataset.load(tmp_path / "other.npz")
    for what, path in (("a file that is not there", tmp_path / "nowhere.npz"), ("a directory", tmp_path)):
        with refused(f"Dataset.load: {what}", DataError, "cannot be read"):
            Dataset.load(path)


def test_a_large_file_is_read(tmp_path):
    """More, packed and unpacked, than a cache of a published data set may have."""
    users = 1_500_000
    items = np.random.default_rng(0).integers(1, 2**31, 3 * users, dtype=np.int64)
    data = Dataset("large", 2**31 - 1, items, np.arange(users + 1) * 3)
    data.save(tmp_path / "large.npz")
    assert (tmp_path / "large.npz").stat().st_size > published.LARGEST
    assert Dataset.load(tmp_path / "large.npz").checksum == data.checksum

"""A user's own data: the three kinds of file, the columns, the filters, and what is refused."""

import datetime
import io
import random
import re
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffurec import load_interactions
from diffurec.data.own import _core

ROWS = [("bo", "tea", 5), ("al", "jam", 2), ("al", "tea", 1), ("bo", "jam", 5), ("al", "oil", 2), ("bo", "rye", 4)]
# Users in the order of their first row: bo, al. Items: tea 1, jam 2, oil 3, rye 4.
SEQUENCES = [[4, 1, 2], [1, 2, 3]]


def csv_file(tmp_path, rows=ROWS, header=("user", "item", "timestamp"), name="mine.csv"):
    path = tmp_path / name
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in (header, *rows)), encoding="utf-8")
    return path


def sequences(data):
    return [s.tolist() for s in data.sequences]


def test_csv_is_ordered_by_time_and_ties_by_the_file(tmp_path):
    data = load_interactions(csv_file(tmp_path))
    assert sequences(data) == SEQUENCES
    assert data.user_ids == ("bo", "al") and data.item_ids == (None, "tea", "jam", "oil", "rye")
    assert data.name == "mine" and data.num_users == 2 and data.num_items == 4
    assert "mine.csv (columns user, item, timestamp)" in data.summary()
    assert "4 of 6 interactions share user and time with another" in data.summary()
    assert str(tmp_path) not in data.summary()
    assert load_interactions(csv_file(tmp_path), name="ours").name == "ours"


def test_parquet_and_inter_give_what_csv_gives(tmp_path):
    table = pd.DataFrame(ROWS, columns=["userId", "asin", "unixReviewTime"])
    table.to_parquet(tmp_path / "a.parquet")
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    text = header + "".join(f"{u}\t{i}\t1\t{t}.0\n" for u, i, t in ROWS)
    (tmp_path / "b.inter").write_text(text)
    for name in ("a.parquet", "b.inter"):
        data = load_interactions(tmp_path / name)
        assert sequences(data) == SEQUENCES and data.user_ids == ("bo", "al")
        assert data.checksum == load_interactions(csv_file(tmp_path)).checksum


def test_parquet_keeps_the_kind_of_the_ids_and_ignores_the_index(tmp_path):
    table = pd.DataFrame({"user": [7, 7, 7], "item": [30, 20, 10], "when": [1, 2, 3], "title": ["a", "b", "c"]})
    table.set_index("user").to_parquet(tmp_path / "a.parquet")
    data = load_interactions(tmp_path / "a.parquet", timestamp="when")
    assert data.user_ids == (7,) and data.item_ids == (None, 30, 20, 10)


def test_ids_in_text_stay_as_they_stand(tmp_path):
    data = load_interactions(csv_file(tmp_path, [("007", "NA", 1), ("007", "null", 2), ("007", "1.0", 3)]))
    assert data.user_ids == ("007",) and data.item_ids == (None, "NA", "null", "1.0")


@pytest.mark.parametrize("header", [
    ("user_id", "item_id", "timestamp"), ("userId", "movieId", "timestamp"), ("UID", "ASIN", "unixReviewTime"),
    ("reviewerID", "product_id", "ts"), ("User", "Movie ID", "Date"), ("visitorid", "itemid", "time")])
def test_usual_spellings_are_found(tmp_path, header):
    assert sequences(load_interactions(csv_file(tmp_path, header=header))) == SEQUENCES


def test_columns_can_be_named(tmp_path):
    path = csv_file(tmp_path, [(i, t, u) for u, i, t in ROWS], header=("user", "item", "timestamp"))
    assert sequences(load_interactions(path, user="timestamp", item="user", timestamp="item")) == SEQUENCES
    header = "who:token\twhat:token\twhen:float\n"
    (tmp_path / "a.inter").write_text(header + "".join(f"{u}\t{i}\t{t}\n" for u, i, t in ROWS))
    for kind in ("", ":token"):
        data = load_interactions(tmp_path / "a.inter", user=f"who{kind}", item="what", timestamp="when")
        assert sequences(data) == SEQUENCES


@pytest.mark.parametrize("what, header, arguments, sentence", [
    ("none for the timestamp", ("user", "item", "rating"), {},
     "columns user, item, rating, .* known to be the timestamp: pass timestamp="),
    ("none for the user", ("who", "item", "time"), {}, "known to be the user: pass user="),
    ("two for the item", ("asin", "movie_id", "time"), {"user": "asin"},
     "asin and movie_id could each be the item: pass item="),
    ("item= names none of them", ("user", "item", "time"), {"item": "thing"},
     "columns user, item, time, but no 'thing': pass another item="),
    ("item= names that of the user", ("user", "item", "time"), {"item": "user"},
     "must be three of them, not user, user, time"),
])
def test_missing_and_ambiguous_columns(refused, tmp_path, what, header, arguments, sentence):
    with refused(f"columns: {what}", ValueError, match=sentence):
        load_interactions(csv_file(tmp_path, header=header), **arguments)


@pytest.mark.parametrize("what, times, sentence", [
    ("one is missing", ["1", "", "3"], "1 values of column timestamp are missing .* line 3"),
    ("two are words", ["1", "soon", "late"],
     r"2 values of column timestamp are neither numbers nor ISO dates .* line 3 \('soon'\)"),
    ("inf", ["1", "inf", "3"], r"1 values .* line 3 \('inf'\)"),
    ("nan", ["1", "nan", "3"], r"1 values .* line 3 \('nan'\)"),
    ("a date of the 13th month", ["2020-01-01", "2020-01-02", "2020-13-01"], r"1 values .* line 4 \('2020-13-01'\)"),
    ("dates with slashes", ["01/02/2020", "02/02/2020", "03/02/2020"],
     "3 values .* line 2"),     # day or month first? not guessed
])
def test_times_that_are_none(refused, tmp_path, what, times, sentence):
    with refused(f"times: {what}", ValueError, match=sentence):
        load_interactions(csv_file(tmp_path, [("al", str(i), t) for i, t in enumerate(times)]))


def test_missing_times_in_parquet_are_named_by_row(refused, tmp_path):
    pd.DataFrame({"user": [1, 1, 1], "item": [1, 2, 3], "time": [1.0, 2.0, None]}).to_parquet(tmp_path / "a.parquet")
    with refused("times: one is missing, in Parquet", ValueError, match="1 values of column time are missing .* row 3"):
        load_interactions(tmp_path / "a.parquet")


@pytest.mark.parametrize("times", [
    ["2020-01-03", "2020-01-01", "2020-01-02"],
    ["2020-01-01T12:00:00+00:00", "2020-01-01T12:30:00+02:00", "2020-01-01T11:59:00.5Z"],
    ["1e9", "-5", "0.5"],
    ["1600000000000000003", "1600000000000000001", "1600000000000000002"],      # nanoseconds, beyond a float
])
def test_times_as_dates_or_numbers(tmp_path, times):
    data = load_interactions(csv_file(tmp_path, [("al", item, t) for item, t in zip("abc", times)]))
    assert sequences(data) == [[2, 3, 1]]


@pytest.mark.parametrize("times", [
    pd.to_datetime(["2020-01-03", "2020-01-01", "2020-01-02"]),
    pd.to_datetime(["2020-01-03", "2020-01-01", "2020-01-02"]).tz_localize("Europe/Paris"),
    [datetime.date(2020, 1, 3), datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)],
])
def test_times_in_parquet(tmp_path, times):
    pd.DataFrame({"user": 1, "item": [1, 2, 3], "time": times}).to_parquet(tmp_path / "a.parquet")
    assert sequences(load_interactions(tmp_path / "a.parquet")) == [[2, 3, 1]]


@pytest.mark.parametrize("row, role", [(("", "tea", 1), "user"), (("al", "", 1), "item")])
def test_missing_ids(refused, tmp_path, row, role):
    with refused(f"ids: one of column {role} is missing", ValueError, match=f"1 values of column {role} are missing .* line 3"):
        load_interactions(csv_file(tmp_path, [ROWS[0], row, *ROWS[1:]]))


def test_blank_lines_are_skipped_and_counted(refused, tmp_path):
    path = csv_file(tmp_path, [*ROWS[:3], (), *ROWS[3:], ()])
    data = load_interactions(path)
    assert sequences(data) == SEQUENCES
    assert data.notes[0].startswith("2 rows without user, item and timestamp")
    with refused("times: a word after a blank line", ValueError, match="line 6"):
        load_interactions(csv_file(tmp_path, [*ROWS[:3], (), ("al", "tea", "soon")]))


@pytest.mark.parametrize("what, rows", [
    ("all rows have", [("al", "tea", 1, 9)] * 3), ("the second row has", [("al", "tea", 1), ("al", "tea", 1, 9)])])
def test_rows_longer_than_the_header_are_refused(refused, tmp_path, what, rows):
    with refused(f"rows: {what} a value more than the header", ValueError, match="cannot be read as a .csv file"):
        load_interactions(csv_file(tmp_path, rows))


def test_byte_order_mark_and_quotes(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfuser,item,timestamp\nal,"tea, green",2\nal,jam,1\nal,oil,3\n')
    assert load_interactions(path).item_ids == (None, "tea, green", "jam", "oil")


def test_short_users_are_dropped_and_counted(tmp_path):
    data = load_interactions(csv_file(tmp_path, [("cy", "tea", 1), *ROWS, ("cy", "gin", 2)]))
    assert sequences(data) == SEQUENCES
    assert data.user_ids == ("bo", "al") and data.item_ids == (None, "tea", "jam", "oil", "rye")
    assert "Users with fewer than 3 interactions were dropped: 1 users, 1 items, 2 interactions." in data.notes


def test_k_core_drops_in_turns_and_says_so(tmp_path):
    # "d" is rated once; without it user 3 has two rows, and without user 3 item "c" has one.
    rows = [(u, i, t) for u in "12" for t, i in enumerate("ab")] + [("1", "e", 5), ("2", "e", 5)]
    rows += [("3", "c", 1), ("3", "d", 2), ("1", "c", 7)]
    data = load_interactions(csv_file(tmp_path, rows), k_core=2)
    assert data.item_ids == (None, "a", "b", "e") and data.user_ids == ("1", "2")
    assert "Users and items outside the 2-core were dropped: 1 users, 2 items, 3 interactions." in data.notes


def test_a_small_core_still_holds_after_short_users_went(tmp_path):
    # In the 2-core user 3 stays with two rows; as a short user it goes, and item "c" must go with it.
    rows = [(u, i, t) for u in "12" for t, i in enumerate("abd")] + [("1", "c", 9), ("3", "c", 1), ("3", "a", 2)]
    data = load_interactions(csv_file(tmp_path, rows), k_core=2)
    assert data.item_ids == (None, "a", "b", "d")
    assert any(note.startswith("Users with fewer than 3 interactions") for note in data.notes)
    assert not any("2-core" in note for note in data.notes)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=60), st.integers(1, 4), st.integers(1, 4))
def test_core_is_the_largest_that_fits(rows, least_user, least_item):
    left = list(range(len(rows)))       # the slow, obvious way: one row at a time
    while True:
        bad = [r for r in left if sum(rows[q][0] == rows[r][0] for q in left) < least_user
               or sum(rows[q][1] == rows[r][1] for q in left) < least_item]
        if not bad:
            break
        left.remove(bad[0])
    users, items = (np.array([row[side] for row in rows], np.int64) for side in (0, 1))
    assert _core(users, items, least_user, least_item).tolist() == left


@pytest.mark.parametrize("what, rows, k_core, steps", [
    ("in a 4-core", ROWS, 4,
     ["6 interactions of 2 users with 4 items", "4-core were dropped: 2 users, 4 items, 6 interactions"]),
    ("of two rows", ROWS[:2], None, ["2 interactions", "fewer than 3 interactions were dropped: 2 users"]),
    ("of a header alone", [], None, ["0 interactions of 0 users"]),
])
def test_nothing_left_says_where_it_went(refused, tmp_path, what, rows, k_core, steps):
    with refused(f"nothing is left {what}", ValueError,
                 match=".*".join(["Nothing is left of .*mine.csv", *map(re.escape, steps)])):
        load_interactions(csv_file(tmp_path, rows), k_core=k_core)


@pytest.mark.parametrize("k_core", [0, -1, 2.5, True, "5"])
def test_k_core_that_is_none(refused, tmp_path, k_core):
    with refused("k_core = …", ValueError, match="k_core must be a whole number of at least 1"):
        load_interactions(csv_file(tmp_path), k_core=k_core)


def test_other_files_are_refused(refused, tmp_path):
    with refused("a file: a .json", ValueError, match=r"suffix '.json'; .csv, .parquet and .inter are read"):
        load_interactions(tmp_path / "a.json")
    with refused("a file: one that is not there", FileNotFoundError, match="There is no file .*a.csv"):
        load_interactions(tmp_path / "a.csv")
    for what, name, content in (("an empty .csv", "b.csv", b""), ("a .parquet that is cut off", "d.parquet", b"PAR1"),
                                ("a .csv that is not UTF-8", "c.csv", b"user,item,time\n\xff\xfe\xfa")):
        (tmp_path / name).write_bytes(content)
        with refused(f"a file: {what}", ValueError, match=rf"{name} cannot be read as a \.{name[2:]} file"):
            load_interactions(tmp_path / name)


# Whole numbers that a float cannot tell apart.

BIG = 2**53     # as floats BIG and BIG + 1 are equal


def parquet_file(tmp_path, user, item=(1, 2, 3) * 2, time=(3, 2, 1) * 2):
    """Two users with three rows each, of any of arrow's types."""
    table = pyarrow.table({"user": user, "item": item, "time": time})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    return tmp_path / "a.parquet"


@pytest.mark.parametrize("kind", [pyarrow.int64(), pyarrow.uint64(), pyarrow.decimal128(38, 0)], ids=str)
@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("empty_row", [False, True])
def test_whole_numbers_in_parquet_stay_whole(tmp_path, kind, encoded, empty_row):
    def column(*values):
        array = pyarrow.array([*values, None] if empty_row else values, kind)
        return array.dictionary_encode() if encoded else array

    users, items = [BIG] * 3 + [BIG + 1] * 3, [BIG + 3, BIG + 2, BIG + 4] * 2
    data = load_interactions(parquet_file(tmp_path, column(*users), column(*items), column(*items)))
    assert data.user_ids == (BIG, BIG + 1) and data.item_ids == (None, BIG + 3, BIG + 2, BIG + 4)
    assert not any(isinstance(id_, float) for id_ in data.user_ids + data.item_ids)
    assert sequences(data) == [[2, 1, 3], [2, 1, 3]]
    assert not any("share user and time" in note for note in data.notes)


def test_uint64_beyond_int64(tmp_path):
    top = pyarrow.array([2**64 - 1] * 3 + [2**64 - 2] * 3 + [None], pyarrow.uint64())
    times = pyarrow.array([2**64 - 1, 2**64 - 2, 1] * 2 + [None], pyarrow.uint64())
    data = load_interactions(parquet_file(tmp_path, top, [1, 2, 3] * 2 + [None], times))
    assert data.user_ids == (2**64 - 1, 2**64 - 2) and sequences(data) == [[3, 2, 1]] * 2


@pytest.mark.parametrize("times", [
    pyarrow.array([1600000000000000003, 1600000000000000002, None] * 2, pyarrow.timestamp("ns")),
    pyarrow.array([1600000000000003, 1600000000000002, None] * 2, pyarrow.timestamp("us", "Europe/Paris")),
    pyarrow.array([2932896, 2932895, None] * 2, pyarrow.date32()),       # the end of the year 9999
    pyarrow.array(["9007199254740993", "9007199254740992", None] * 2),
    pyarrow.array([b"9007199254740993.0", b"9007199254740992.5", None] * 2),
    pyarrow.array([Decimal("9007199254740993.25"), Decimal("9007199254740993.24"), None] * 2),
], ids=lambda times: str(times.type))
def test_times_of_every_type_beside_an_empty_row(tmp_path, times):
    users = pyarrow.array([BIG, BIG, None] * 2)
    for k in range(2):      # a third row for the user, earlier than the others
        times = pyarrow.concat_arrays([times, times[1:2]])
    users = pyarrow.array([BIG, BIG, None, BIG + 1, BIG + 1, None, BIG, BIG + 1])
    items = pyarrow.array(["late", "early", None, "late", "early", None, "again", "again"])
    data = load_interactions(parquet_file(tmp_path, users, items, times))
    assert data.user_ids == (BIG, BIG + 1)
    assert [[data.item_ids[i] for i in s] for s in sequences(data)] == [["early", "again", "late"]] * 2


@pytest.mark.parametrize("times, order", [
    (["9007199254740993", "9007199254740992", "9007199254740994"], [2, 1, 3]),
    (["9007199254740993", "9007199254740992", "0.5"], [3, 2, 1]),
    (["9007199254740993.0", "9007199254740992.0", "9007199254740994.00"], [2, 1, 3]),
    (["18446744073709551617", "18446744073709551616", "-1"], [3, 2, 1]),
    (["9223372036854775808", "9223372036854775807", "-9223372036854775808"], [3, 2, 1]),
    (["1600000000.1234568", "1600000000.1234567", "16e8"], [3, 2, 1]),
    (["1.0", "1", "1e0"], [1, 2, 3]),       # equal: the order of the file
    (["2020-01-01T00:00:00.000000002", "2020-01-01T00:00:00.000000001", "2020-01-01"], [3, 2, 1]),
])
@pytest.mark.parametrize("name", ["a.csv", "a.inter"])
def test_times_in_text_keep_their_order(tmp_path, times, order, name):
    rows = [("al", item, t) for item, t in zip("abc", times)]
    path = csv_file(tmp_path, rows, name=name)
    if name == "a.inter":
        path.write_text(path.read_text().replace(",", "\t"))
    assert sequences(load_interactions(path)) == [order]


# What a column can be.

@pytest.mark.parametrize("role", ["user", "item", "time"])
@pytest.mark.parametrize("nested", [
    pyarrow.array([[1]] * 6), pyarrow.array([{"a": 1}] * 6),
    pyarrow.array([[(1, 2)]] * 6, pyarrow.map_(pyarrow.int64(), pyarrow.int64())),
    pyarrow.array([[1, 2]] * 6, pyarrow.list_(pyarrow.int64(), 2)),
], ids=lambda array: str(array.type))
def test_nested_columns_are_refused(refused, tmp_path, role, nested):
    path = parquet_file(tmp_path, **{"user": pyarrow.array(["a"] * 6), role: nested})
    with refused(f"columns: {role} holds values of type {nested.type}", ValueError,
                 match=rf"a.parquet cannot be read .*column {role} holds .*plain values"):
        load_interactions(path)


def test_categories_and_time_zones(tmp_path):
    pd.DataFrame({"user": pd.Categorical(["b", "b", "a"] * 2), "item": pd.Categorical([30, 20, 10] * 2),
                  "time": pd.date_range("2020-01-01", periods=6, tz="Asia/Tokyo")[::-1]}).to_parquet(
                      tmp_path / "a.parquet")
    data = load_interactions(tmp_path / "a.parquet")
    assert data.user_ids == ("b",) and data.item_ids == (None, 30, 20) and sequences(data) == [[2, 1, 2, 1]]


@pytest.mark.parametrize("header, arguments", [
    (("user_id", "user_id", "item_id", "time"), {}), (("user_id", "item_id", "time", "item_id"), {}),
    (("user_id", "item_id", "x", "x"), {"timestamp": "x"})])
@pytest.mark.parametrize("kind", ["csv", "inter", "parquet"])
def test_a_column_that_stands_twice_is_refused(refused, tmp_path, kind, header, arguments):
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.table([pyarrow.array([1, 2, 3])] * 4, names=header), path)
    else:
        path.write_text("\n".join(("\t" if kind == "inter" else ",").join(row) for row in (header, *["1234"] * 3)))
    twice = next(name for name in header if header.count(name) > 1)
    with refused(f"columns: {twice} stands twice in a .{kind}", ValueError,
                 match=f"columns {', '.join(header)}: {twice} stands there 2 times; rename all but"):
        load_interactions(path, **arguments)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_column_that_is_not_used_may_stand_twice(tmp_path, kind):
    path, names = tmp_path / f"a.{kind}", ["x", "user", "x", "item", "x", "time"]
    columns = [[9] * 6, ["a"] * 6, [8] * 6, list("abcdef"), [7] * 6, list(range(6, 0, -1))]
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.table([pyarrow.array(c) for c in columns], names=names), path)
    else:
        path.write_text("\n".join(",".join(map(str, row)) for row in (names, *zip(*columns))))
    data = load_interactions(path)
    assert data.item_ids == (None, *"abcdef") and sequences(data) == [[6, 5, 4, 3, 2, 1]]


# Files that are none.

@pytest.mark.parametrize("what, name", [
    ("a name of 300 characters", "x" * 300 + ".csv"), ("a name of 5,000 parts", "x/" * 5000 + "a.parquet"),
    ("a link to itself", "loop.csv"), ("a file below a link to itself", "loop.csv/a.inter")])
def test_names_that_lead_nowhere(refused, tmp_path, what, name):
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    with refused(f"a file: {what}", FileNotFoundError, match="There is no file"):
        load_interactions(tmp_path / name)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("odd"), NotImplementedError("odd"), KeyError("odd"),
                                   RecursionError("odd"), OverflowError("odd"), OSError("odd"), AttributeError("odd")])
def test_whatever_a_reader_raises_is_one_sentence(refused, tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error
    monkeypatch.setattr(pd, "read_csv", fail)
    reason = rf"\({type(error).__name__}(: '?odd'?)?\)"
    with refused(f"a file on which its reader fails with {error!r}", ValueError,
                 match=f"mine.csv cannot be read as a .csv file {reason}"):
        load_interactions(csv_file(tmp_path))


def test_text_that_is_no_utf_8_in_parquet(refused, tmp_path):
    wrong = pyarrow.array([b"\xff\xfe"] * 6).view(pyarrow.string())
    with refused("a file: a .parquet with text that is not UTF-8", ValueError,
                 match="a.parquet cannot be read as a .parquet file .*UTF8"):
        load_interactions(parquet_file(tmp_path, wrong))


def test_long_values_and_many_columns_are_shortened(refused, tmp_path):
    with refused("times: a word of 100,000 characters", ValueError, match="line 2") as told:
        load_interactions(csv_file(tmp_path, [("al", "tea", "x" * 100_000)]))
    assert len(str(told.value)) < 500
    with pytest.raises(ValueError, match="known to be the user") as told:
        load_interactions(csv_file(tmp_path, header=[f"column{i}" for i in range(10_000)]))
    assert len(str(told.value)) < 1500


@pytest.mark.parametrize("kind", ["csv", "inter", "parquet"])
def test_whatever_is_damaged_only_a_value_error_comes(tmp_path, kind):
    packed = io.BytesIO()
    pd.DataFrame(ROWS, columns=["user", "item", "time"]).to_parquet(packed)
    text = "user,item,time\n" + "".join(f"{u},{i},{t}\n" for u, i, t in ROWS)
    content = {"csv": text.encode(), "inter": text.replace(",", "\t").encode(), "parquet": packed.getvalue()}[kind]
    path, chance, told = tmp_path / f"a.{kind}", random.Random(kind), 0
    for _ in range(150):
        damaged = bytearray(content[:chance.randrange(1, len(content))] if chance.random() < 0.2 else content)
        for _ in range(chance.choice((1, 2, 5))):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            load_interactions(path)     # a letter of an id may change without harm
        except ValueError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            told += 1
    assert told

"""A user's own data: the kinds of file, the columns, the times, the filters, and what is refused."""

import datetime
import gzip
import io
import json
import pickle
import random
import re
import subprocess
import sys
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffurec import load_interactions
from diffurec.data import check_interactions, text
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
     r"2 values of column timestamp are neither numbers nor dates of one form .* line 3 \('soon'\)"),
    ("inf", ["1", "inf", "3"], r"1 values .* line 3 \('inf'\)"),
    ("nan", ["1", "nan", "3"], r"1 values .* line 3 \('nan'\)"),
    ("a date of the 13th month", ["2020-01-01", "2020-01-02", "2020-13-01"], r"1 values .* line 4 \('2020-13-01'\)"),
    ("dates with slashes", ["01/02/2020", "02/02/2020", "03/02/2020"],     # day or month first? not guessed
     r"3 values .* two ways .* line 2 .*pass date_format='%m/%d/%Y' or date_format='%d/%m/%Y'"),
    ("dates with the day first and the month first", ["13/02/2020", "02/13/2020", "03/02/2020"], "1 values .* of one form"),
    ("the time of day", ["10:00", "11:00", "12:00"], "3 values .* pass date_format="),
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


@pytest.mark.parametrize("what, rows, line", [
    ("all rows have a value more", [("al", "tea", 1, 9)] * 3, "line 2 has 4"),
    ("the second row has a value more", [("al", "tea", 1), ("al", "tea", 1, 9)], "line 3 has 4"),
    ("the 900th row has a value more", [("al", "tea", 1)] * 899 + [("al", "tea", 1, "")], "line 901 has 4"),
    ("the 900th row has a value less", [("al", "tea", 1)] * 899 + [("al", "tea")], "line 901 has 2")])
def test_rows_of_another_length_than_the_header_are_refused(refused, tmp_path, monkeypatch, what, rows, line):
    monkeypatch.setattr(text, "BLOCK", 100)     # in any block
    with refused(f"rows: {what} than the header", ValueError, match=f"cannot be read as a .csv file: .*{line}"):
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
    with refused("a file: an .xlsx", ValueError, match=r"suffix '.xlsx'; .csv, .* are read: .* pass the DataFrame"):
        load_interactions(tmp_path / "a.xlsx")
    with refused("a file: one that is not there", FileNotFoundError, match="There is no file .*a.csv"):
        load_interactions(tmp_path / "a.csv")
    (tmp_path / "folder").mkdir()
    for what, name, content, said in (
            ("an empty .csv", "b.csv", b"\n\n", "b.csv is empty"),
            ("a .parquet that is cut off", "d.parquet", b"PAR1", r"cannot be read as a \.parquet file"),
            ("a .feather that is none", "d.feather", b"ARROW1", r"cannot be read as a \.feather file"),
            ("a .csv.gz that is none", "d.csv.gz", b"user", r"cannot be read as a \.csv\.gz file"),
            ("a .csv.gz that is cut off", "e.csv.gz", gzip.compress(b"user,item,time\n" * 99)[:-9], "cannot be read as"),
            ("a .csv that is not UTF-8", "c.csv", b"user,item,time\nal,\xff\xfe,1", "in the encoding utf-8: pass encoding="),
            ("a .csv in UTF-16", "f.csv", "user,item,time".encode("utf-16"), "in the encoding utf-8: pass encoding="),
            ("a .json with half an object", "g.json", b'{"user": 1}\n{"us', "line 2 is no JSON object"),
            ("a .txt with JSON", "h.txt", b'{"user": 1}', "holds JSON: rename it to .json"),
            ("a folder without Parquet", "folder", None, "folder without a .parquet file")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with refused(f"a file: {what}", ValueError, match=said):
            load_interactions(tmp_path / name)
    with refused("a file: an unknown encoding", ValueError, match="in the encoding klingon"):
        load_interactions(csv_file(tmp_path), encoding="klingon")
    with refused("neither a path nor a DataFrame", ValueError, match="this is a dict: make a pandas.DataFrame of it"):
        load_interactions({"user": [1]})


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
    monkeypatch.setattr(pyarrow.csv, "read_csv", fail)
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
        load_interactions(csv_file(tmp_path, [range(10_000)], header=[f"column{i}" for i in range(10_000)]))
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


# DataFrames, pickles, sequences.

def test_a_dataframe_gives_what_its_file_gives(tmp_path):
    table = pd.DataFrame(ROWS, columns=["user", "item", "timestamp"])
    for one in (table, table.set_index("user"), table[::-1][::-1], table.astype({"user": "category"}), table.convert_dtypes(),
                table.astype({"timestamp": object}), table.assign(timestamp=pd.to_datetime(table["timestamp"], utc=True)),
                table.assign(timestamp=[pd.Timestamp(t) for t in table["timestamp"]]).astype({"timestamp": object})):
        before = one.copy()
        data = load_interactions(one)
        assert sequences(data) == SEQUENCES and data.user_ids == ("bo", "al")
        assert data.checksum == load_interactions(csv_file(tmp_path)).checksum
        assert one.equals(before)
    assert "a DataFrame (columns user, item, timestamp)" in data.summary()
    assert sequences(load_interactions(table.set_axis([0, 1, 2], axis=1), user="0", item="1", timestamp="2")) == SEQUENCES


@pytest.mark.parametrize("what, change, sentence", [
    ("lists", {"item": [[1]] * 6}, "column item holds no plain values; item holds lists: .*explode"),
    ("a missing time", {"timestamp": [1, 2, None, 4, 5, 6]}, "1 values of column timestamp are missing .* row 3")])
def test_dataframes_that_are_refused(refused, what, change, sentence):
    with refused(f"a DataFrame with {what}", ValueError, match=sentence):
        load_interactions(pd.DataFrame(ROWS, columns=["user", "item", "timestamp"]).assign(**change))


@pytest.mark.parametrize("option", [{"sep": ";"}, {"names": ["user", "item", "time"]}, {"layout": "sequences"}])
def test_options_of_text_are_refused_for_others(refused, option):
    with refused(f"a DataFrame and {next(iter(option))}=", ValueError, match="is for files of text, and this is a DataFrame"):
        load_interactions(pd.DataFrame(), **option)


def test_the_published_pickles_form_is_read_and_no_other_pickle(refused, tmp_path):
    parts = {"train": {0: [5], 1: [6, 5], 2: []}, "val": {0: [7], 1: [7], 2: [5]}, "test": {0: [6], 1: [5], 2: [7]}}
    (tmp_path / "mine.pkl").write_bytes(pickle.dumps(parts))
    data = load_interactions(tmp_path / "mine.pkl")
    assert [[data.item_ids[i] for i in s] for s in sequences(data)] == [[5, 7, 6], [6, 5, 7, 5]] and data.user_ids == (0, 1)
    assert "The order of interactions is that of the file; no times were read." in data.notes
    for what, held, said in (("a DataFrame", pd.DataFrame(ROWS), r"pass load_interactions\(pandas.read_pickle\("),
                             ("a date", datetime.date(2020, 1, 1), "asks for the global datetime.date")):
        (tmp_path / "mine.pkl").write_bytes(pickle.dumps(held))
        with refused(f"a file: a .pkl with {what}", ValueError, match=said):
            load_interactions(tmp_path / "mine.pkl")


@pytest.mark.parametrize("content, sep", [
    ("bo rye tea jam\nal tea jam oil\n", None), ("bo: rye, tea, jam\n\nal: tea, jam, oil", None),
    ("bo;rye;tea;jam\nal;tea;jam;oil;\n", None),
    ("bo\trye,tea,jam\nal\ttea,jam,oil\n", None), ("bo~rye~tea~jam\nal~tea~jam~oil\n", "~")])
def test_a_line_can_be_a_user_and_their_items(tmp_path, content, sep):
    (tmp_path / "mine.txt").write_text(content)
    data = load_interactions(tmp_path / "mine.txt", layout="sequences", sep=sep)
    assert [[data.item_ids[i] for i in s] for s in sequences(data)] == [["rye", "tea", "jam"], ["tea", "jam", "oil"]]
    assert data.user_ids == ("bo", "al") and any("order of interactions is that of the file" in note for note in data.notes)


# Separators, headers, encodings.

@pytest.mark.parametrize("sep", [",", "\t", ";", "|", "::", " "])
def test_separators_are_found(tmp_path, sep):
    for name in ("mine.csv", "mine.txt.gz"):
        content = "".join(sep.join(map(str, (u, i, "5-0", t))) + "\n" for u, i, t in [("user", "item", "time"), *ROWS]).encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        assert sequences(load_interactions(tmp_path / name)) == SEQUENCES


def test_quotes_are_read_where_a_column_has_them_and_are_else_a_part_of_the_value(tmp_path):
    for quoted, ids in (('"{i}"', ("tea", "jam", "oil", "rye")), ('"{i}', ('"tea', '"jam', '"oil', '"rye'))):
        (tmp_path / "mine.tsv").write_text("user\titem\ttime\n" + "".join(
            f"{u}\t{quoted.format(i=i)}\t{t}\n" for u, i, t in ROWS))
        assert load_interactions(tmp_path / "mine.tsv").item_ids == (None, *ids)


@pytest.mark.parametrize("content", [
    "bo rye tea\nal tea jam oil\ncy oil\n", "1;2;3\n4;2\n", "1,2,3\n1,2,3,4\n5,1\n9,3,2\n8,1,2,5,6"])
def test_lines_of_different_lengths_may_be_sequences(refused, tmp_path, content):
    (tmp_path / "mine.txt").write_text(content)
    with refused(f"no table: {content!r}", ValueError, match='different lengths.*, pass layout="sequences", otherwise'):
        load_interactions(tmp_path / "mine.txt")


def test_other_separators_can_be_passed(refused, tmp_path):
    for sep, written in (("~", "~"), ("|||", "|||"), (r"\s+", "   ")):
        path = tmp_path / "mine.txt"
        path.write_text("".join(written.join(map(str, row)) + "\n" for row in [("user", "item", "time"), *ROWS]))
        assert sequences(load_interactions(path, sep=sep)) == SEQUENCES
        if sep == "~":
            with pytest.raises(ValueError, match="pass sep="):
                load_interactions(path)
    with refused("sep = one that is not there", ValueError, match="has no ';' in its first line .* leave it out"):
        load_interactions(csv_file(tmp_path), sep=";")
    (tmp_path / "two.txt").write_text("user,a;item,b;time\n1,2;3,4;5\n")
    with refused("a separator that cannot be told", ValueError, match="could be separated by ',' or by ';': pass sep="):
        load_interactions(tmp_path / "two.txt")


def test_a_separator_of_two_characters_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "BLOCK", 64)
    rows = [(f"u{n % 7}", f"i{n}", n) for n in range(500)]
    (tmp_path / "mine.dat").write_text("\n".join("::".join(map(str, row)) for row in rows))     # the last line is not ended
    data = load_interactions(tmp_path / "mine.dat", names=["user", "item", "time"])
    assert data.item_ids == (None, *(row[1] for row in rows))


@pytest.mark.parametrize("what, content, given, names", [
    ("times of 1, 2, 3", "A1,B1,5.0,100\nA1,B2,5.0,101\nA1,B3,3.0,102\n", {},
     "['user', 'item', 'rating', 'column4'], with \"time\""),
    ("values given for columns", "A1,B1,5.0,100\nA1,B2,5.0,101\nA1,B3,3.0,102\n",
     {"user": "A1", "item": "B1", "timestamp": "100"}, "['user', 'item', 'rating', 'time']"),
    ("text alone", "al,tea\nbo,jam\nal,jam\n", {}, "['user', 'item'], and order=\"file\""),
    ("dates", "al,tea,2020-01-01\nal,jam,2020-01-02\n", {}, "['user', 'item', 'time']"),
    ("numbers alone", "1 21 27\n2 8 14\n", {}, "['user', 'item', 'column3'], with"),
    ("one line", "1,2,1300000000\n", {}, "['user', 'item', 'time']"),
    ("ISBNs", "0195153448,u9,1300000000\n034545104X,u9,1300000001\n", {}, "['item', 'user', 'time']"),
])
def test_a_file_without_a_header_is_recognised(refused, tmp_path, what, content, given, names):
    (tmp_path / "mine.csv").write_text(content)
    with refused(f"no header: {what}", ValueError, match=rf"has no header .*pass names={re.escape(names)}"):
        load_interactions(tmp_path / "mine.csv", **given)
    with refused(f"no header: {what}, and the order of the file", ValueError, match="has no header"):
        load_interactions(tmp_path / "mine.csv", order="file", **{k: v for k, v in given.items() if k != "timestamp"})


@pytest.mark.parametrize("header", ["user,item,time", "who,what,when", ",what,time", "Id 1,Id 2,2020 or so"])
def test_a_header_is_recognised(tmp_path, header):
    path = csv_file(tmp_path, [(1, 2, 1), (1, 3, 2), (1, 4, 3)], header=header.split(","))
    user, item, time = header.split(",")
    assert sequences(load_interactions(path, user=user, item=item, timestamp=time)) == [[1, 2, 3]]


def test_names_of_columns(refused, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("".join(f"{i},{t},{u}\n" for u, i, t in ROWS))
    assert sequences(load_interactions(path, names=["item", "time", "user"])) == SEQUENCES
    assert sequences(load_interactions(path, names=["a", "b", "c"], user="c", item="a", timestamp="b")) == SEQUENCES
    with refused("names = too few", ValueError, match="names= has 2 names, and .* 3 columns .*a name for each"):
        load_interactions(path, names=["user", "item"])
    with refused("names = a string", ValueError, match="names= must be a list"):
        load_interactions(path, names="item,time,user")
    with refused("names = for a file with a header", ValueError, match="has a header .*leave names= out"):
        load_interactions(csv_file(tmp_path), names=["user", "item", "time"])


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
def test_other_encodings(tmp_path, encoding):
    path = tmp_path / "mine.csv"
    rows = [("user", "item", "time"), *ROWS, ("al", "café", 9)]
    path.write_bytes("".join(f"{u},{i},{t}\n" for u, i, t in rows).encode(encoding))
    with pytest.raises(ValueError, match="pass encoding="):
        load_interactions(path)
    assert load_interactions(path, encoding=encoding).item_ids[-1] == "café"


def test_json_lines_keep_the_kind_and_the_whole_of_ids(refused, tmp_path):
    path = tmp_path / "mine.jsonl"
    objects = [{"user": "007", "text": "a\nb", "item": 2**53 + n, "time": n} for n in range(3)]
    path.write_text("\n".join(map(json.dumps, objects)))
    data = load_interactions(path)
    assert data.user_ids == ("007",) and data.item_ids == (None, *(2**53 + n for n in range(3)))
    path.write_text("\n".join(map(json.dumps, [*objects * 50, {"user": "007", "item": 1, "time": -0.5}])))
    assert sequences(load_interactions(path))[0][0] == 4        # a fraction among whole numbers
    path.write_text("\n".join(map(json.dumps, [*objects * 50, {"user": "007", "item": "x", "time": 1}])))
    with refused("a .jsonl with ids of numbers and of text", ValueError, match="changed from number to string"):
        load_interactions(path)
    path.write_text('{"user": {"id": 1}, "item": 1, "time": 1}\n')
    with refused("a .jsonl with objects for ids", ValueError, match=r"user holds no plain values; .*json_normalize\("):
        load_interactions(path)
    path.write_text('{"visitor": 1, "visits": [1, 2]}\n')
    with refused("a .jsonl with lists", ValueError, match=r"known to be the item.*visits holds lists: .*explode\('visits'\)"):
        load_interactions(path, order="file")


# Dates, columns, order.

@pytest.mark.parametrize("dates, order", [
    (["13/02/2020", "02/03/2020", "03/01/2020"], [3, 1, 2]), (["02/13/2020", "03/02/2020", "01/03/2020"], [3, 1, 2]),
    (["01.02.2020 10:00", "14.02.2020 09:00", "01.02.2020 09:00"], [3, 1, 2]),
    (["03 24, 2011", "12 1, 2010", "1 13, 2011"], [2, 3, 1]),
    (["Jan 2, 2020", "Dec 4, 2019", "Feb 3, 2020"], [2, 1, 3]), (["2-Mar-2020", "3-Jan-2020", "1-Apr-2020"], [2, 1, 3]),
    (["Tue Apr 03 18:00:09 +0000 2012", "Tue Apr 03 19:00:00 +0200 2012", "Mon Apr 02 18:00:09 +0000 2012"], [3, 2, 1]),
    (["2019-10-01 00:00:02 UTC", "2019-10-01 00:00:01 UTC", "2019-10-01 00:00:03 UTC"], [2, 1, 3]),
    (["11/13/2019 8:36:57 PM", "11/13/2019 12:36:57 AM", "11/13/2019 9:00:00 AM"], [2, 3, 1]),
    (["2020/01/03", "2020/01/01", "2020/01/02"], [2, 3, 1]), (["05/05/2020", "04/04/2020", "06/06/2020"], [2, 1, 3]),
    (["20200103", "20191231", "20200102"], [2, 3, 1]),
])
def test_dates_of_which_there_is_one_reading(tmp_path, dates, order):
    data = load_interactions(csv_file(tmp_path, [("al", item, f'"{date}"') for item, date in zip("abc", dates)]))
    assert sequences(data) == [order]


def test_a_form_of_dates_can_be_passed(refused, tmp_path):
    path = csv_file(tmp_path, [("al", "a", "01/02/2020"), ("al", "b", "02/01/2020"), ("al", "c", "01/03/2020")])
    assert sequences(load_interactions(path, date_format="%d/%m/%Y")) == [[2, 1, 3]]
    assert sequences(load_interactions(path, date_format="%m/%d/%Y")) == [[1, 3, 2]]
    with refused("date_format = another than the file's", ValueError, match="3 values .* form '%Y' .* line 2"):
        load_interactions(path, date_format="%Y")
    with refused("date_format = none", ValueError, match="date_format='%Q' is no form of a date"):
        load_interactions(path, date_format="%Q")


@pytest.mark.parametrize("header, row, columns", [
    ("reviewerID,asin,unixReviewTime,reviewTime", '{u},{i},130000000{t},"03 0{t}, 2011"', "reviewerID, asin, unixReviewTime"),
    ("user_id,video_id,time,date,timestamp", "{u},{i},2020-07-0{t},2020070{t},159387890{t}.5", "user_id, video_id, timestamp"),
    ("user_id,user_session,product_id,event_time", "{u},s,{i},{t}", "user_id, product_id, event_time"),
    ("session_id,item_id,ts", "{u},{i},{t}", "session_id, item_id, ts")])
def test_the_column_that_is_meant_is_taken(tmp_path, header, row, columns):
    (tmp_path / "mine.csv").write_text("\n".join([header, *(row.format(u=u, i=i, t=t) for u, i, t in ROWS)]))
    data = load_interactions(tmp_path / "mine.csv")
    assert data.source.endswith(f"(columns {columns})") and sequences(data) == SEQUENCES


@pytest.mark.parametrize("what, header, row, sentence", [
    ("two dates", "user,item,date,time", "{u},{i},2020-01-01,2020-01-01", "date and time could each be the timestamp"),
    ("a session, and a user who is unknown", "user,session,item,time", "NA,{u},{i},{t}", "user and session could each be"),
    ("two items and no time", "user,asin,parent_asin", "{u},{i},{i}",
     "asin and parent_asin could each be the item: pass item= .* timestamp: pass timestamp= with its name, or order=\"file\"")])
def test_columns_that_could_each_be_meant(refused, tmp_path, what, header, row, sentence):
    (tmp_path / "mine.csv").write_text("\n".join([header, *(row.format(u=u, i=i, t=t) for u, i, t in ROWS)]))
    with refused(f"columns: {what}", ValueError, match=sentence):
        load_interactions(tmp_path / "mine.csv")


def test_the_order_of_the_file_needs_no_times(refused, tmp_path):
    path = csv_file(tmp_path, [(u, i, "?") for u, i, _ in ROWS])
    data = load_interactions(path, order="file")
    assert sequences(data) == [[1, 2, 4], [2, 1, 3]] and data.source.endswith("(columns user, item)")
    assert data.notes[0] == "The order of interactions is that of the file; no times were read."
    for option in ({"timestamp": "timestamp"}, {"date_format": "%Y"}, {"duplicates": "drop"}, {"ties": "shuffle"}):
        with refused(f"order = 'file' and {next(iter(option))}=", ValueError, match="is of times, .* none are read: leave it"):
            load_interactions(path, order="file", **option)


@pytest.mark.parametrize("option", ["order", "layout", "duplicates", "ties"])
def test_a_choice_that_is_none(refused, tmp_path, option):
    with refused(f"{option} = 'first'", ValueError, match=f"{option} must be '.*' or '.*', but it is 'first'"):
        load_interactions(csv_file(tmp_path), **{option: "first"})


def test_what_is_wrong_with_a_files_beginning_is_found_without_reading_it(tmp_path):
    path = csv_file(tmp_path, [*ROWS * 50, ("al", "tea", "soon")])
    check_interactions(path, sep=None, names=None, order="time", layout="rows", duplicates="keep", ties="file")
    with pytest.raises(ValueError, match="soon"):
        load_interactions(path)
    for wrong in ({"user": "who"}, {"k_core": 0}, {"order": "first"}, {"sep": ";"}):
        how = {"sep": None, "names": None, "order": "time", "layout": "rows", "duplicates": "keep", "ties": "file"} | wrong
        with pytest.raises(ValueError) as told, open(path):
            load_interactions(path, **wrong)
        with pytest.raises(ValueError, match=re.escape(str(told.value))):
            check_interactions(path, **how)


# What changes results.

def test_identical_rows_are_counted_and_can_be_dropped(tmp_path):
    path = csv_file(tmp_path, [row for row in ROWS for _ in range(2)] + [("al", "jam", 9)])
    data = load_interactions(path)
    assert len(data.items) == 13
    assert "6 rows repeat another row's user, item and time: they are kept; duplicates=\"drop\" drops them." in data.notes
    assert "6 interactions are with the same item as the user's one before; they are kept." in data.notes
    dropped = load_interactions(path, duplicates="drop")
    assert sequences(dropped) == [SEQUENCES[0], [*SEQUENCES[1], 2]]
    assert any(note.startswith("6 rows repeat") and note.endswith("were dropped.") for note in dropped.notes)
    assert not any("same item as" in note for note in dropped.notes)


def test_targets_that_training_never_saw_are_counted(tmp_path):
    rows = [("al", i, t) for t, i in enumerate("abcx")] + [("bo", i, t) for t, i in enumerate("acyb")] + [
        ("cy", i, t) for t, i in enumerate("bcab")]     # training: a b, a c, b c
    said = "1 of 3 validation targets and 1 of the test targets are items that training never saw: no model can have learned"
    assert f"{said} them." in load_interactions(csv_file(tmp_path, rows)).notes
    rows = [row for row in rows if row[1] not in "xy"] + [("al", "a", 9), ("bo", "a", 9)]
    assert not any("never saw" in note for note in load_interactions(csv_file(tmp_path, rows)).notes)


def test_ids_that_look_missing_are_counted(tmp_path):
    notes = load_interactions(csv_file(tmp_path, [("NA", i, t) for _, i, t in ROWS])).notes
    assert "6 rows have the user 'NA', which is taken for an id." in notes


def tied_rows(item):
    """30 users with 20 items each on three days, in the order of the items, whose ids are item(n)."""
    return [(f"u{u}", item(n), n * u % 3) for n in range(20) for u in range(30)]


@pytest.mark.parametrize("item", [str, lambda n: f"{n:03}", lambda n: -n, lambda n: f"i{n * 7 % 20}"],
                         ids=["numbers", "text", "falling", "together"])
def test_ties_in_the_order_of_the_items_warn(tmp_path, item):
    path = csv_file(tmp_path, tied_rows(item))
    with pytest.warns(UserWarning, match='interactions share user and time .* sorted by item.* ties="shuffle"'):
        data = load_interactions(path)
    assert any('Within these ties the file is sorted by item' in note for note in data.notes)


def test_other_ties_do_not_warn(tmp_path):
    rows = tied_rows(str)
    mixed = random.Random(0).sample(rows, len(rows))
    few = [(u, i, t if n < 5 else 10 + n) for n, (u, i, t) in enumerate(rows)]
    for one in (mixed, few):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not any("sorted by item" in note for note in load_interactions(csv_file(tmp_path, one)).notes)


def test_ties_can_be_put_in_a_random_order(tmp_path):
    path = csv_file(tmp_path, tied_rows(str))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = load_interactions(path)
        warnings.simplefilter("error")
        mixed, again, other = (load_interactions(path, ties="shuffle", seed=seed) for seed in (0, 0, 1))
    assert mixed.checksum == again.checksum and len({kept.checksum, mixed.checksum, other.checksum}) == 3
    assert (mixed.user_ids, mixed.item_ids) == (kept.user_ids, kept.item_ids)
    times = {(u, i): t for u, i, t in tied_rows(str)}
    for user, before, after in zip(kept.user_ids, kept.sequences, mixed.sequences):
        assert sorted(before) == sorted(after)
        days = [times[user, mixed.item_ids[i]] for i in after]
        assert days == sorted(days)
    assert any("their order is random" in note for note in mixed.notes)
    untied = csv_file(tmp_path, [(u, i, n) for n, (u, i, _) in enumerate(ROWS)])
    assert load_interactions(untied, ties="shuffle").checksum == load_interactions(untied).checksum


def test_only_three_columns_stay_in_memory(tmp_path):
    # 200,000 rows with 60 MB of texts: measured were 60 MB, and 196 MB where pandas reads all columns as text.
    with open(tmp_path / "mine.csv", "w") as file:
        file.write("user_id,review,item_id,timestamp\n")
        for n in range(200_000):
            file.write(f'u{n % 9973},"{"lorem, ipsum " * 23}{n}",i{n % 4999},{n}\n')
    code = ("import resource, sys, pandas, pyarrow.csv, diffurec.data as data\n"
            "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
            "before = peak(); loaded = data.load_interactions(sys.argv[1]); print(len(loaded.items), peak() - before)")
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "mine.csv"], capture_output=True, text=True, check=True)
    rows, megabytes = done.stdout.split()
    assert rows == "200000" and float(megabytes) < 130

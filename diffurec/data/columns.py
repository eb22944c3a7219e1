"""Which column of a table is the user, the item and the time, and whether a file's first line is a header at all."""

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence

# Column names that are understood, in lower case and without anything but letters and digits. An earlier line is taken
# before a later one; within a line all names are equal.
SPELLINGS = {
    "user": (
        "user userid uid reviewer reviewerid customer customerid visitor visitorid account accountid member memberid "
        "client clientid buyer buyerid person personid player playerid profile profileid reader readerid msno "
        "householdkey uuid guid userno custid customercode fullvisitorid".split(),
        "username login screenname profilename reviewprofilename".split(),
        "session sessionid usersession".split(),
    ),
    "item": ((
        "item itemid iid movie movieid film filmid asin parentasin product productid article articleid book bookid isbn "
        "business businessid track trackid song songid artist artistid video videoid game gameid venue venueid locationid "
        "poi poiid place placeid gmapid newsid anime animeid manga mangaid recipe recipeid joke jokeid appid sku skuid goods "
        "goodsid beer beerid beerbeerid wine wineid hotel hotelid restaurant restaurantid showid titleid contentid postid "
        "photoid course courseid jobid adid adgroupid aid stockcode "
        "bookmark bookmarkid clickarticleid clickedarticle itemcode itemno productcode articlecode".split()),),
    "timestamp": ((
        "timestamp timestamps time ts unixreviewtime unixtime unixtimestamp reviewtime date datetime dt tdat timems "
        "timestampms created createdat createtime creationtime creationdate createddate eventtime eventtimestamp eventdate "
        "timeframe ratingtimestamp ratingtime ratingdate ratedat reviewdate clicktime viewtime playedat listenedat "
        "purchasedate purchasetime orderdate ordertime transactiondate transactiontime transactiondt invoicedate checkintime "
        "checkindate checkinat utctime utctimestamp localtime dateadded dateupdated readat startedat addedat updatedat "
        "interactiontime actiontime behaviortime logtime visittime requesttime servertime publishedat "
        "clicktimestamp lastwatchdt watchedat viewedat purchasedat orderedat boughtat playdate eventdatetime eventts tstamp "
        "epoch".split()),),
}
MISSING = frozenset(["", "NA", "N/A", "NaN", "nan", "NULL", "Null", "null", "None", "none", r"\N", "<NA>"])
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
DATE = re.compile(r"\d{4}[-/.]\d\d?[-/.]\d\d?(\D.*)?|\d\d?[-/.]\d\d?[-/.]\d{2,4}(\D.*)?|\d\d? \d\d?, \d{4}|"
                  r"(?=.*\d)(\w+,? )?(\d\d?[ -])?(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?[ -].*\d{2}.*", re.I)
ASIN = re.compile(r"B0[0-9A-Z]{8}|\d{9}[\dX]")      # of Amazon's items; books have their ISBN
EPOCH = (6.3e8, 2.2e9)      # seconds from 1990 to 2039; times are written in these, or in thousandths of thousandths


def kind(values: Sequence[str]) -> str:
    """What a column's values are: number, date, text, or missing where there is none."""
    there = [value for value in map(str.strip, values) if value not in MISSING]
    if not there:
        return "missing"
    return next((name for name, form in (("number", NUMBER), ("date", DATE)) if all(map(form.fullmatch, there))), "text")


def is_epoch(values: Sequence[str]) -> bool:
    """Whether they are whole numbers that look like times since 1970, in seconds or a thousandth, ... of them."""
    there = [value.strip() for value in values if value.strip() not in MISSING]
    if not there or not all(re.fullmatch(r"[1-9]\d*(\.\d*)?", value) for value in there):
        return False
    return any(all(EPOCH[0] <= float(value) / unit <= EPOCH[1] for value in there) for unit in (1, 1e3, 1e6, 1e9))


def plain(column: str) -> str:
    """A column's name as SPELLINGS has it; RecBole writes name:type."""
    return re.sub(r"[\W_]", "", column.split(":")[0].lower())


def spelled(column: str) -> bool:
    return any(plain(column) in line for lines in SPELLINGS.values() for line in lines)


def is_header(first: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Whether a file's first line names its columns; below: the lines that follow it.

    A name stands above numbers or dates and is none itself. Where all is text a known name decides, and a value that
    comes again in its column is no name.
    """
    columns = [[row[i] for row in below] for i in range(len(first))]
    kinds = [kind([value]) for value in first]
    names = any(k == "text" and kind(column) in ("number", "date") for k, column in zip(kinds, columns))
    values = any(k in ("number", "date") for k in kinds)
    if names == values:
        known = sum(spelled(value) for value in first)
        again = any(k == "text" and value in column for k, value, column in zip(kinds, first, columns))
        return known > 1 or known == 1 and not again or not values and not again
    return names


def _may_be_ids(values: Sequence[str]) -> bool:
    """Ids are never missing, no decimal numbers, and do not count the rows."""
    if any(value.strip() in MISSING or re.fullmatch(r"[+-]?\d*\.\d*", value.strip()) for value in values):
        return False
    return len(values) < 3 or list(values) not in ([str(first + i) for i in range(len(values))] for first in (0, 1))


def guess_names(rows: Sequence[Sequence[str]], wanted: Mapping[str, str | None]) -> list[str]:
    """Names for the columns of a file without a header: user, item and, where a column looks like one, time.

    wanted: what the caller took for the columns' names, values of the first row among them.
    """
    columns = [[row[i] for row in rows] for i in range(len(rows[0]))]
    names: dict[int, str] = {}
    for role, name in wanted.items():       # the columns that the caller pointed at
        if name is not None and rows[0].count(name) == 1:
            names[rows[0].index(name)] = "time" if role == "timestamp" else role
    left = [i for i in range(len(columns)) if i not in names]
    if "time" not in names.values() and len(columns) > 2:
        epochs, dates = ([i for i in left if test(columns[i])] for test in (is_epoch, lambda values: kind(values) == "date"))
        if times := epochs or dates:
            names[times[-1]] = "time"
            left.remove(times[-1])
    ids = [i for i in left if _may_be_ids(columns[i])]
    ids = ids if len(ids) > 1 else left
    if "user" not in names.values() and ids:
        asins = [i for i in ids if sum(map(bool, map(ASIN.fullmatch, columns[i]))) >= 0.9 * len(rows)]
        others = [i for i in ids if i not in asins[:1]] or ids
        names[others[0]] = "user"
        if asins and asins[0] != others[0] and "item" not in names.values():
            names[asins[0]] = "item"
        ids = [i for i in ids if i not in names]
    if "item" not in names.values() and ids:
        names[max(ids, key=lambda i: len(set(columns[i])) > 1)] = "item"       # the first with more than one value
    for i in range(len(columns)):
        small = kind(columns[i]) == "number" and len(set(columns[i])) > 1 and all(
            abs(float(v)) <= 10 for v in columns[i] if v.strip() not in MISSING)
        if i not in names:
            names[i] = "rating" if small and "rating" not in names.values() else f"column{i + 1}"
    return [names[i] for i in range(len(columns))]


def find_columns(where: str, found: list[str], wanted: Mapping[str, str | None], sample: Callable[[int], list[str]],
                 hint: Callable[[], str] = str) -> dict[str, int]:
    """{role: place of its column}, for the roles of `wanted`: as named there, or the one column with a usual spelling.

    sample: the first values of the column at a place, as text: a time that is a number is taken before its printed twin.
    hint: gives what to add where a role has no column.
    ValueError where a column cannot be told.
    """
    listed = f"{where} has the columns {textwrap.shorten(', '.join(found), 1000, placeholder=' ...') or '(none)'}"
    columns, problems = {}, []
    for role, name in wanted.items():
        if name is not None:
            fits = [c for c in found if c == name] or [c for c in found if c.split(":")[0] == name]
            if not fits:
                raise ValueError(f"{listed}, but no {name!r}: pass another {role}=.")
        else:
            lines = [fits for line in SPELLINGS[role] if (fits := [c for c in found if plain(c) in line])]
            fits = lines[0] if lines else []
            if role == "user" and len(lines) > 1 and kind(sample(found.index(fits[0]))) == "missing":
                fits = [*fits, *lines[-1]]      # of visits without a login, the session may be meant
            if role == "timestamp" and len(set(fits)) > 1:
                epochs = [c for c in fits if is_epoch(sample(found.index(c)))]
                fits = epochs if len(epochs) == 1 else fits
            if not fits:
                other = ', or order="file" if there is no time and the rows stand in order' if role == "timestamp" else ""
                problems.append(f"none of them is known to be the {role}: pass {role}= with its name{other}")
                continue
        if len(set(fits)) > 1:
            problems.append(f"{' and '.join(fits)} could each be the {role}: pass {role}= with one")
            continue
        if found.count(fits[0]) > 1:
            raise ValueError(f"{listed}: {fits[0]} stands there {found.count(fits[0])} times; rename all but one.")
        columns[role] = found.index(fits[0])
    if problems:
        more = hint() if any(problem.startswith("none") for problem in problems) else ""
        raise ValueError(f"{listed}, and {', and '.join(problems)}{more}.")
    if len(set(columns.values())) < len(columns):
        *first, last = columns
        raise ValueError(f"{listed}; {', '.join(first)} and {last} must be {'three' if len(columns) == 3 else 'two'} of them, "
                         f"not {', '.join(found[i] for i in columns.values())}.")
    return columns

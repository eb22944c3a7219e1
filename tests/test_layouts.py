"""Public data sets as they are published, in small: each loads, or is refused in a sentence that leads to the call that does.

The files are made up here. Every layout holds the same interactions; data/LAYOUTS.md is written from what is said of them by
`make layouts`.
"""

import ast
import gzip
import json
import pickle
import random
import re
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow.parquet
import pytest
from conftest import escaped

from diffurec import load_interactions

TABLE = Path(__file__).resolve().parent.parent / "data" / "LAYOUTS.md"
DAY = 86400
# 12 users, each with 4 to 6 of 30 items, one in nine days, in no order.
ROWS = [(100 + u, 200 + (7 * u + 5 * k * k) % 30, 1_301_005_523 + 9 * DAY * k + 61 * u)
        for u in range(12) for k in range(4 + u % 3)]
random.Random(0).shuffle(ROWS)
SEQUENCES = {u: [i for v, i, _ in sorted(ROWS, key=lambda row: row[2]) if v == u] for u, _, _ in ROWS}
LAYOUTS = {}


def layout(data_set, file, call=None):
    """Registers a layout: write(path) makes its file; call loads it where load_interactions(file) does not."""
    def register(write):
        assert file not in LAYOUTS, file
        LAYOUTS[file] = data_set, call, write
        return write
    return register


def lines(data_set, file, form, call=None, header=None, encoding="utf-8"):
    """A layout of text, whose lines are `form` of u, i and t: format fields, or a function."""
    @layout(data_set, file, call)
    def write(path):
        text = "".join([f"{header}\n"] * (header is not None) + [
            (form(u, i, t) if callable(form) else form.format(u=u, i=i, t=t, d=date(t))) + "\n" for u, i, t in ROWS])
        content = text.encode(encoding)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def objects(data_set, file, form, call=None, dump=json.dumps):
    lines(data_set, file, lambda u, i, t: dump(form(u, i, t)), call)


def date(t, form="%Y-%m-%d %H:%M:%S"):
    return datetime.fromtimestamp(t, UTC).strftime(form)


def named(file, names, more=""):
    return f"load_interactions('{file}', names={names.split()}{more})"


RATED = "user item rating time"
lines("MovieLens 100K", "u.data", "{u}\t{i}\t3\t{t}", named("u.data", "user item column3 time"))
lines("MovieLens 1M and 10M", "ratings.dat", lambda u, i, t: f"{u}::{i}::{1 + t % 5}::{t}", named("ratings.dat", RATED))
lines("MovieLens 20M, 25M, 32M", "ml-32m/ratings.csv", "{u},{i},3.5,{t}", header="userId,movieId,rating,timestamp")
lines("MovieTweetings", "movietweetings/ratings.dat", lambda u, i, t: f"{u}::0{i}::{t % 10}::{t}",
      named("movietweetings/ratings.dat", RATED))
lines("Amazon 2014, ratings only", "ratings_Beauty.csv", lambda u, i, t: f"A{u}XYZ,B000000{i},{1 + t % 5}.0,{t}",
      named("ratings_Beauty.csv", RATED))
objects("Amazon 2014, 5-core", "reviews_Beauty_5.json.gz", lambda u, i, t: {
    "reviewerID": f"A{u}XYZ", "asin": f"B000000{i}", "helpful": [0, 1], "reviewText": 'up, "x"\nthere',
    "overall": 5.0, "summary": "x", "unixReviewTime": t // DAY * DAY, "reviewTime": date(t, "%m %d, %Y")})
lines("Amazon 2014 as a table", "reviews.csv", lambda u, i, t: f'A{u}XYZ,B000000{i},"x, ""y""\nz","{date(t, "%m %d, %Y")}"',
      header="reviewerID,asin,reviewText,reviewTime")
lines("Amazon 2018, ratings only", "All_Beauty.csv", lambda u, i, t: f"B000000{i},A{u}XYZ,{1 + t % 5}.0,{t}",
      named("All_Beauty.csv", "item user rating time"))
objects("Amazon 2018, reviews", "All_Beauty.json.gz", lambda u, i, t: {
    "overall": 1.0, "verified": True, "reviewTime": date(t, "%m %d, %Y"), "reviewerID": f"A{u}XYZ", "asin": f"B000000{i}",
    "style": {"Size:": " 3"}, "unixReviewTime": t // DAY * DAY})
lines("Amazon 2023, ratings only", "amazon-2023/All_Beauty.csv", lambda u, i, t: f"A{u}XYZ,B000000{i},5.0,{t}123",
      header="user_id,parent_asin,rating,timestamp")
lines("Amazon 2023, last out with history", "All_Beauty.train.csv.gz", lambda u, i, t: f"A{u}XYZ,B000000{i},5.0,{t}123,B1 B2",
      header="user_id,parent_asin,rating,timestamp,history")
objects("Amazon 2023, reviews", "All_Beauty.jsonl", lambda u, i, t: {
    "rating": 5.0, "title": "x", "text": "y", "images": [], "asin": f"B000000{i}", "parent_asin": f"B000000{i}",
    "user_id": f"A{u}XYZ", "timestamp": t * 1000}, "load_interactions('All_Beauty.jsonl', item='parent_asin')")
lines("Amazon Fine Food", "Reviews.csv", lambda u, i, t: f'{t % 99},B000000{i},A{u}XYZ,"me, you",0,1,5,{t},x,"it\n""is"""',
      header="Id,ProductId,UserId,ProfileName,HelpfulnessNumerator,HelpfulnessDenominator,Score,Time,Summary,Text")
lines("LastFM 1K", "userid-timestamp-artid-artname-traid-traname.tsv",
      lambda u, i, t: f'user_{u}\t{date(t, "%Y-%m-%dT%H:%M:%SZ")}\t{"" if i % 3 else "mb"}\t"Artist {i}\t\tTrack',
      named("userid-timestamp-artid-artname-traid-traname.tsv", "user time column3 item column5 column6"))
lines("HetRec LastFM, plays", "user_artists.dat", "{u}\t{i}\t300", "load_interactions('user_artists.dat', order=\"file\")",
      header="userID\tartistID\tweight")
lines("HetRec LastFM, tags", "user_taggedartists-timestamps.dat", "{u}\t{i}\t13\t{t}000",
      header="userID\tartistID\ttagID\ttimestamp")
lines("LFM-2b", "listening_events.tsv", "{u}\t{i}\t77\t{d}", header="user_id\ttrack_id\talbum_id\ttimestamp")
lines("LFM-1b, with its header", "LFM-1b_LEs.txt", "{u}\t5\t6\t{i}\t{t}",
      "load_interactions('LFM-1b_LEs.txt', item='track_id')",
      header="user_id\tartist_id\talbum_id\ttrack_id\ttimestamp")
lines("Million Song, Taste Profile", "train_triplets.txt", "b80344d{u}\tSOAKIMP{i}\t1",
      named("train_triplets.txt", "user item column3", ', order="file"'))
objects("Yelp", "yelp_academic_dataset_review.json", lambda u, i, t: {
    "review_id": f"r{t}", "user_id": f"u_{u}", "business_id": f"-b{i}", "stars": 4.0, "text": "a\nb", "date": date(t)})
lines("Gowalla", "loc-gowalla_totalCheckins.txt.gz",
      lambda u, i, t: f"{u}\t{date(t, '%Y-%m-%dT%H:%M:%SZ')}\t30.23\t-97.79\t{i}",
      named("loc-gowalla_totalCheckins.txt.gz", "user time column3 column4 item"))
lines("Brightkite", "loc-brightkite_totalCheckins.txt",
      lambda u, i, t: f"{u}\t{date(t, '%Y-%m-%dT%H:%M:%SZ')}\t39.747652\t-104.99251\t88c46bf{i}",
      named("loc-brightkite_totalCheckins.txt", "user time column3 column4 item"))
lines("Foursquare, New York and Tokyo", "dataset_TSMC2014_NYC.txt",
      lambda u, i, t: f"{u}\t4f5a{i}\t4bf58dd\tCafé\t40.7\t-74.0\t-240\t{date(t, '%a %b %d %H:%M:%S +0000 %Y')}",
      named("dataset_TSMC2014_NYC.txt", "user item column3 column4 column5 column6 column7 time"), encoding="latin-1")
lines("Foursquare, global", "dataset_TIST2015_Checkins.txt",
      lambda u, i, t: f"{u}\t4f5a{i}\t{date(t, '%a %b %d %H:%M:%S +0000 %Y')}\t-240",
      named("dataset_TIST2015_Checkins.txt", "user item time column4"))
lines("Foursquare as a table", "dataset_TSMC2014_TKY.csv",
      lambda u, i, t: f"{u},4f5a{i},4bf58dd,Bar,35.7,139.6,540,{date(t, '%a %b %d %H:%M:%S +0000 %Y')}",
      header="userId,venueId,venueCategoryId,venueCategory,latitude,longitude,timezoneOffset,utcTimestamp")
lines("Diginetica", "train-item-views.csv", lambda u, i, t: f"{u};NA;{i};{t % 9999};{date(t, '%Y-%m-%d')}",
      "load_interactions('train-item-views.csv', user='sessionId', timestamp='eventdate')",
      header="sessionId;userId;itemId;timeframe;eventdate")
lines("Yoochoose, clicks", "yoochoose-clicks.dat", lambda u, i, t: f"{u},{date(t, '%Y-%m-%dT%H:%M:%S.277Z')},{i},0",
      named("yoochoose-clicks.dat", "user time item column4"))
lines("Yoochoose, buys", "yoochoose-buys.dat", lambda u, i, t: f"{u},{date(t, '%Y-%m-%dT%H:%M:%S.277Z')},{i},{t % 9999},1",
      named("yoochoose-buys.dat", "user time item column4 column5"))
lines("RetailRocket", "events.csv", "{t}117,{u},view,{i},", header="timestamp,visitorid,event,itemid,transactionid")
lines("H&M", "transactions_train.csv", lambda u, i, t: f"{date(t, '%Y-%m-%d')},{u}fab,0{i},0.05,2",
      header="t_dat,customer_id,article_id,price,sales_channel_id")
lines("REES46 Cosmetics", "2019-Oct.csv", "{d} UTC,cart,{i},14,,runail,2.62,{u},26dd-6e4",
      header="event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session")
objects("Steam, reviews", "steam_reviews.json.gz", lambda u, i, t: {
    "username": f"u{u}", "hours": 0.1, "product_id": str(i), "date": date(t, "%Y-%m-%d"), "text": "it's"},
    "load_interactions(pandas.DataFrame(map(ast.literal_eval, gzip.open('steam_reviews.json.gz', 'rt'))))", dump=repr)
lines("Steam, purchases and play", "steam-200k.csv", '151603{u},"Game, {i}",purchase,1.0,0',
      named("steam-200k.csv", "user item column3 column4 column5", ', order="file"'))
lines("Taobao, behaviour", "UserBehavior.csv", "{u},{i},23,pv,{t}", named("UserBehavior.csv", "user item column3 column4 time"))
lines("Taobao, advertisements", "raw_sample.csv", "{u},{t},{i},430548_1007,1,0",
      header="user,time_stamp,adgroup_id,pid,nonclk,clk")
lines("Tmall", "user_log_format1.csv", lambda u, i, t: f"{u},{i},833,2882,2661,{date(t, '%m%d')},0",
      header="user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type")
lines("Goodreads, interactions", "goodreads_interactions.csv", "{u},{i},1,5,0",
      "load_interactions('goodreads_interactions.csv', order=\"file\")", header="user_id,book_id,is_read,rating,is_reviewed")
objects("Goodreads, by genre", "goodreads_interactions_poetry.json.gz", lambda u, i, t: {
    "user_id": f"a{u}", "book_id": str(i), "review_id": "c", "is_read": True, "rating": 4, "read_at": "", "started_at": "",
    "date_added": date(t, "%a %b %d %H:%M:%S -0700 %Y"), "date_updated": date(t, "%a %b %d %H:%M:%S -0700 %Y")},
    "load_interactions('goodreads_interactions_poetry.json.gz', timestamp='date_added')")
lines("KuaiRec", "big_matrix.csv", lambda u, i, t: f"{u},{i},13838,10867,{date(t)}.438,{date(t, '%Y%m%d')},{t}.438,1.27",
      header="user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio")
lines("KuaiRand", "log_standard_4_08_to_4_21_pure.csv", lambda u, i, t: f"{u},{i},{date(t, '%Y%m%d')},1400,{t}448,1",
      header="user_id,video_id,date,hourmin,time_ms,is_click")
lines("MIND", "behaviors.tsv",
      lambda u, i, t: f"{1 + ROWS.index((u, i, t))}\tU{u}\t{date(t, '%m/%d/%Y %-I:%M:%S %p')}\tN{i}\tN{i}-1 N5-0",
      named("behaviors.tsv", "column1 user time item column5"))


@layout("Netflix", "combined_data_1.txt",
        "load_interactions((t := pandas.read_csv('combined_data_1.txt', names=['user', 'rating', 'date'], dtype=str))"
        ".assign(item=t.user.where(t.date.isna()).ffill()).dropna())")
def netflix(path):
    path.write_text("".join(f"{item}:\n" + "".join(
        f"{u},3,{date(t, '%Y-%m-%d')}\n" for u, i, t in ROWS if i == item) for item in sorted({i for _, i, _ in ROWS})))


lines("RecBole", "ml-100k.inter", "{u}\t{i}\t3\t{t}.0", header="user_id:token\titem_id:token\trating:float\ttimestamp:float")
lines("RecBole, sessions", "diginetica.inter", "{u}\t{i}\t{t}", header="session_id:token\titem_id:token\ttimestamp:float")
lines("RecBole, without times", "lastfm.inter", "{u}\t{i}\t5\trock pop", "load_interactions('lastfm.inter', order=\"file\")",
      header="user_id:token\tartist_id:token\tweight:float\ttag_value:token_seq")
lines("GRU4Rec", "rsc15_train_full.txt", "{u}\t{i}\t{t}.277", header="SessionId\tItemId\tTime")


@layout("SASRec, pairs in order", "Beauty.txt", named("Beauty.txt", "user item", ', order="file"'))
def sasrec(path):
    path.write_text("".join(f"{u} {i}\n" for u, items in SEQUENCES.items() for i in items))


@layout("S3Rec, LightGCN: a user's items in a line", "s3rec/Beauty.txt",
        "load_interactions('s3rec/Beauty.txt', layout=\"sequences\")")
def s3rec(path):
    path.write_text("".join(f"{u} {' '.join(map(str, items))}\n" for u, items in SEQUENCES.items()))


@layout("DiffuRec, BERT4Rec: three dicts", "dataset.pkl")
def three_dicts(path):
    users = list(SEQUENCES.values())
    parts = {name: {u: items[part] for u, items in enumerate(users)} for name, part in (
        ("train", slice(-2)), ("val", slice(-2, -1)), ("test", slice(-1, None)))}
    path.write_bytes(pickle.dumps(parts, protocol=4))


def frame():
    return pd.DataFrame(ROWS, columns=["user_id", "item_id", "timestamp"])


@layout("a pickled DataFrame", "ratings.pkl", "load_interactions(pandas.read_pickle('ratings.pkl'))")
def pickled(path):
    frame().to_pickle(path)


@layout("Feather", "ratings.feather")
def feather(path):
    frame().to_feather(path)


@layout("Parquet, categories and a time zone", "ratings.parquet")
def parquet(path):
    table = frame()
    table.astype({"user_id": str, "item_id": str}).astype({"user_id": "category", "item_id": "category"}).assign(
        timestamp=pd.to_datetime(table["timestamp"], unit="s", utc=True)).to_parquet(path)


@layout("Spark, a folder of Parquet", "spark.parquet")
def spark(path):
    path.mkdir()
    (path / "_SUCCESS").touch()
    for part, rows in enumerate((frame()[:20], frame()[20:])):
        rows.to_parquet(path / f"part-0000{part}.snappy.parquet")


@layout("Spark, a folder for each day", "by_day")
def partitioned(path):
    table = frame().sort_values("timestamp", kind="stable")
    table.assign(date=[date(t, "%Y-%m-%d") for t in table.pop("timestamp")]).to_parquet(path, partition_cols=["date"])


lines("MovieLens 100K, a fold", "u1.base", "{u}\t{i}\t3\t{t}", named("u1.base", "user item column3 time"))
lines("NCF", "ml-1m.train.rating", "{u}\t{i}\t4\t{t}", named("ml-1m.train.rating", "user item column3 time"))
lines("LastFM 360K", "usersha1-artmbid-artname-plays.tsv", "0000{u}\tmb{i}\tan artist\t300",
      named("usersha1-artmbid-artname-plays.tsv", "user item column3 column4", ', order="file"'))
lines("Globo", "clicks_hour_000.csv", "{u},{t}123,{t}999,2,{i},{t}456,4",
      header="user_id,session_id,session_start,session_size,click_article_id,click_timestamp,click_environment")
lines("Kion", "kion.csv", lambda u, i, t: f"{u},{i},{date(t, '%Y-%m-%d')},4250,72.0",
      header="user_id,item_id,last_watch_dt,total_dur,watched_pct")
lines("Alibaba, mobile", "tianchi_mobile_recommend_train_user.csv", lambda u, i, t: f"{u},{i},1,,{date(t, '%Y-%m-%d %H')}",
      header="user_id,item_id,behavior_type,user_geohash,time")
lines("TiSASRec", "tisasrec/ml-1m.txt", "{u}\t{i}\t5\t{t}", named("tisasrec/ml-1m.txt", "user item column3 time"))


@layout("Steam, Australian users", "australian_user_reviews.json",
        "load_interactions(pandas.json_normalize((table := pandas.DataFrame(map(ast.literal_eval, open("
        "'australian_user_reviews.json')))).to_dict('records'), 'reviews', ['user_id']), timestamp='posted', "
        "date_format='Posted %B %d, %Y.')")
def nested_dicts(path):
    path.write_text("".join(repr({"user_id": str(u), "reviews": [
        {"posted": date(t, "Posted %B %d, %Y."), "item_id": str(i)} for v, i, t in ROWS if v == u]}) + "\n" for u in SEQUENCES))


@layout("Parquet with a list of items for each user", "lists.parquet",
        "load_interactions(pandas.DataFrame(pyarrow.parquet.read_table('lists.parquet').to_pylist()).explode('items'), "
        "item='items', order=\"file\")")
def lists_in_parquet(path):
    pd.DataFrame({"user_id": list(SEQUENCES), "items": list(SEQUENCES.values())}).to_parquet(path)


lines("Book-Crossing", "BX-Book-Ratings.csv", '"{u}";"0{i}";"Café"', encoding="latin-1",
      header='"User-ID";"ISBN";"Book-Rating"', call="load_interactions('BX-Book-Ratings.csv', order=\"file\")")
lines("Anime", "rating.csv", "{u},{i},-1", "load_interactions('rating.csv', order=\"file\")", header="user_id,anime_id,rating")
lines("Food.com", "RAW_interactions.csv", lambda u, i, t: f'{u},{i},{date(t, "%Y-%m-%d")},4,"Great, with\nsalad"',
      header="user_id,recipe_id,date,rating,review")
lines("Online Retail", "online_retail.csv",
      lambda u, i, t: f'5363,{i}A,"T, LIGHT",6,{date(t, "%-m/%-d/%Y %-H:%M")},2.55,{u},UK',
      header="InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country")
lines("Ta Feng", "ta_feng.csv", lambda u, i, t: f"{date(t, '%-m/%-d/%Y')},{u},45-49 ,115 ,100205,{i},2,30",
      header="TRANSACTION_DT,CUSTOMER_ID,AGE_GROUP,PIN_CODE,PRODUCT_SUBCLASS,PRODUCT_ID,AMOUNT,SALES_PRICE")
lines("BeerAdvocate", "beer_reviews.csv", "1,Vecchio,{t},1.5,u{u},Hefe,{i}",
      header="brewery_id,brewery_name,review_time,review_overall,review_profilename,beer_name,beer_beerid")
lines("MicroLens", "MicroLens-100k_pairs.csv", "{u},{i},{t}583", header="user,item,timestamp")
objects("Google Local", "review-Hawaii.json.gz", lambda u, i, t: {
    "user_id": str(u), "name": "x", "time": t * 1000, "rating": 5, "text": None, "pics": None, "gmap_id": f"0x{i}"})
lines("Douban", "moviereviews_cleaned.txt", '"{u}"\t"{i}"\t"4"\t"like"\t"{d}"',
      header='"user_id"\t"movie_id"\t"rating"\t"labels"\t"time"')
lines("KONECT", "out.movielens.txt", "{u} {i} 3 {t}", named("out.movielens.txt", "user item column3 time"),
      header="% bip weighted\n% 50 12 30")
lines("Epinions", "epinions_rating.txt", "{u} {i}   3 {t}", named("epinions_rating.txt", "user item column3 time"))
lines("Twitch", "100k_a.csv", "{u},33842865744,s{i},154,156",
      named("100k_a.csv", "user column2 item column4 column5", ', order="file"'))


@layout("OTTO", "otto.jsonl", "load_interactions(pandas.json_normalize([json.loads(line) for line in open('otto.jsonl')], "
                              "'events', ['session']))")
def otto(path):
    path.write_text("".join(json.dumps({"session": u, "events": [
        {"aid": i, "ts": t * 1000, "type": "clicks"} for v, i, t in ROWS if v == u]}) + "\n" for u in SEQUENCES))


@layout("a JSON list", "ratings.json", "load_interactions(pandas.read_json('ratings.json', dtype=False))")
def one_list(path):
    frame().to_json(path, orient="records")


def number(text):
    return int(re.search(r"(\d{3})\D*$", str(text))[1])


def check(data, file):
    """That a layout gives the interactions: in time order, or those of the file where it has no times."""
    users = SEQUENCES if file == "dataset.pkl" else map(number, data.user_ids)     # there they are numbered from 0
    found = {u: [number(data.item_ids[i]) for i in s] for u, s in zip(users, data.sequences)}
    in_file = {u: [i for v, i, _ in ROWS if v == u] for u in SEQUENCES}
    ordered_by_file = any("that of the file" in note for note in data.notes) and file not in (
        "Beauty.txt", "s3rec/Beauty.txt", "dataset.pkl", "lists.parquet")
    assert found == (in_file if ordered_by_file else SEQUENCES)


@pytest.fixture(scope="session")
def said():
    return {}


@pytest.mark.parametrize("file", LAYOUTS)
def test_a_layout_loads_or_is_refused_with_the_call_that_loads_it(said, tmp_path, monkeypatch, file):
    data_set, call, write = LAYOUTS[file]
    monkeypatch.chdir(tmp_path)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    write(tmp_path / file)
    if call is None:
        data = load_interactions(file)
        sentence = "loads: " + re.search(r"\((columns .*)\)$", data.source)[1]
    else:
        with pytest.raises(ValueError) as refusal:
            load_interactions(file)
        sentence = str(refusal.value)
        assert "\n" not in sentence and not sentence.startswith("cannot be read")
        parts = re.findall(r"names=\[.*?\]|order=.file.|layout=.sequences.|[a-z_]+=(?=')|\.where\(|read_\w+|"
                           r"json_normalize\(\[.*", call)
        for part in ["literal_eval"] if "literal_eval" in call else parts:      # what comes of the dicts is another matter
            assert part in sentence
        modules = {"pandas": pd, "pyarrow": pyarrow, "json": json, "gzip": gzip, "ast": ast}
        data = eval(call, modules | {"load_interactions": load_interactions})
    check(data, file)
    said[file] = sentence


def table(said):
    rows = []
    for file, sentence in said.items():
        data_set, call, _ = LAYOUTS[file]
        rows.append(f"| {escaped(data_set)} | `{file}` | {escaped(sentence)} | {f'`{call}`' if call else ''} |")
    return "\n".join([
        "# Public data sets: how each loads", "",
        "Written by `make layouts` from `tests/test_layouts.py`, which makes a small file of each of these layouts, tries",
        "`load_interactions(file)`, and where that is refused the call beside it.", "",
        "| data set | file | `load_interactions(file)` | the call that loads it, where that is another |",
        "|---|---|---|---|", *rows]) + "\n"


def test_the_table_of_layouts_is_what_is_said(said, request):
    if len(said) < len(LAYOUTS):
        pytest.skip("only all layouts together make the table")
    if request.config.getoption("write_layouts"):
        TABLE.write_text(table(said), encoding="utf-8")
    assert TABLE.read_text(encoding="utf-8") == table(said), "`make layouts` writes it anew"

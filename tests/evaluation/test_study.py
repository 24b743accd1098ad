"""Studies on disk: what is compared, who was asked what, votes that count once, and what they say."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from PIL import Image, PngImagePlugin
from typer.testing import CliRunner, Result

from supir.cli.main import app
from supir.errors import OptionError, StudyError
from supir.evaluation.study.pictures import INPUT, benchmark_cases, folder_cases, identities, served
from supir.evaluation.study.report import ALL, cluster_interval, preferences, sign_test, wilson
from supir.evaluation.study.store import AlreadyAnswered, NotAsked, Store, Vote

METHODS = ("ours", "theirs", "others")
IDENTITIES = {(recipe, name, method): f"{recipe}{name}{method}" for recipe in ("sr4", "sr8") for name in "abcd"
              for method in (*METHODS, INPUT)}  # fmt: skip
NUM_QUESTIONS = 2 * 4 * 3


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.begin(tmp_path / "study.sqlite", METHODS, IDENTITIES)


@pytest.fixture
def best(tmp_path: Path) -> Store:
    """One that asks for the best of all methods."""
    return Store.begin(tmp_path / "best.sqlite", METHODS, IDENTITIES, at_once=3)


def joined(store: Store, num_questions: int | None = None) -> int:
    who = store.participant(store.join(num_questions))
    assert who is not None
    return who


def answer(store: Store, who: int, choose: Callable[[tuple[str, ...]], int | None]) -> None:
    """Answer all that is left; ``choose`` is told the methods by place."""
    while (question := store.progress(who).current) is not None:
        store.vote(who, question, choose(store.shown(who, question)[2]), f"id of {question}")


def save(path: Path, seed: int, size: tuple[int, int] = (24, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(path)


# What is compared


def test_only_pictures_that_all_methods_have(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b", "c")):
        save(tmp_path / "one" / f"{name}.png", seed)
        save(tmp_path / "lq" / f"{name}.png", seed, (6, 4))
    save(tmp_path / "two" / "a.jpg", 5)
    save(tmp_path / "two" / "c.png", 6)
    cases, left_out = folder_cases({"one": tmp_path / "one", "two": tmp_path / "two"}, tmp_path / "lq")
    assert [case.name for case in cases] == ["a", "c"]
    assert left_out == ["b"]
    assert cases[0].files == {name: tmp_path / file for name, file in
                              {"one": "one/a.png", "two": "two/a.jpg", INPUT: "lq/a.png"}.items()}  # fmt: skip
    assert len(set(identities(cases, ["one", "two"]).values())) == 6


def test_a_benchmark_of_several_recipes(tmp_path: Path) -> None:
    for recipe, methods in {"sr4": ("ours", "theirs", "lq", "hq"), "sr8": ("ours", "theirs"), "x": ("ours",)}.items():
        for number, method in enumerate(methods):
            save(tmp_path / recipe / method / "a.png", number)
    cases, left_out = benchmark_cases(tmp_path, ["ours", "theirs"])
    assert [(case.recipe, sorted(case.files)) for case in cases] == [
        ("sr4", ["input", "original", "ours", "theirs"]), ("sr8", ["ours", "theirs"])
    ]  # fmt: skip
    assert left_out == []
    with pytest.raises(OptionError, match="no recipe with the methods ours, none"):
        benchmark_cases(tmp_path, ["ours", "none"])


def test_results_of_two_sizes_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "one" / "a.png", 0)
    save(tmp_path / "two" / "a.png", 1, (24, 18))
    cases, _ = folder_cases({"one": tmp_path / "one", "two": tmp_path / "two"})
    with pytest.raises(
        StudyError, match="one 24 x 16 pixels, two 24 x 18 pixels; results of one picture must have one"
    ):
        identities(cases, ["one", "two"])
    with pytest.raises(OptionError, match="a comparison needs two"):
        folder_cases({"one": tmp_path / "one"})


def test_what_is_served_has_the_pixels_and_nothing_else(tmp_path: Path) -> None:
    secret = PngImagePlugin.PngInfo()
    secret.add_text("Software", "ours, of 2026")
    pixels = np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8)
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    Image.fromarray(pixels).save(tmp_path / "ours" / "a.png", pnginfo=secret, compress_level=1)
    Image.fromarray(pixels).save(tmp_path / "theirs" / "a.png", compress_level=9)
    cases, _ = folder_cases({name: tmp_path / name for name in ("ours", "theirs")})
    hashes = identities(cases, ["ours", "theirs"])
    ours, theirs = (served(cases[0].files[name], hashes["", "a", name]) for name in ("ours", "theirs"))
    assert ours == theirs
    assert b"2026" in (tmp_path / "ours" / "a.png").read_bytes()
    shown = Image.open(io.BytesIO(ours))
    np.testing.assert_array_equal(np.asarray(shown), pixels)
    assert set(shown.info) <= {"dpi"}  # one and the same for all
    save(tmp_path / "ours" / "a.png", 7)
    with pytest.raises(StudyError, match="was changed while the study ran"):
        served(cases[0].files["ours"], hashes["", "a", "ours"])


# The votes


def test_everybody_is_asked_everything_in_an_order_of_their_own(store: Store) -> None:
    orders = []
    for _ in range(8):
        who = joined(store)
        order = []
        while (question := store.progress(who).current) is not None:
            recipe, picture, methods = store.shown(who, question)
            order.append((recipe, picture, *methods))
            store.vote(who, question, None, "an id")
        orders.append(order)
    for order in orders:
        assert len({(*question[:2], *sorted(question[2:])) for question in order}) == NUM_QUESTIONS
    assert len({tuple(order) for order in orders}) == 8
    on_the_left = sum(vote.shown == vote.methods for vote in store.votes())
    assert scipy.stats.binomtest(on_the_left, 8 * NUM_QUESTIONS).pvalue > 1e-6


def test_the_best_is_asked_of_all_methods_at_once(best: Store) -> None:
    assert (best.at_once, best.num_questions()) == (3, 8)
    for _ in range(30):
        answer(best, joined(best), lambda shown: shown.index("theirs"))
    votes = best.votes()
    assert {(vote.recipe, vote.picture) for vote in votes} == {(recipe, name) for recipe, name, _ in IDENTITIES}
    assert {vote.methods for vote in votes} == {METHODS}
    assert {vote.chosen for vote in votes} == {"theirs"}
    orders = [vote.shown for vote in votes]
    assert scipy.stats.chisquare([orders.count(order) for order in permutations(METHODS)]).pvalue > 1e-6


def test_a_subset_goes_to_what_has_fewest_votes(store: Store) -> None:
    for _ in range(4):
        answer(store, joined(store, NUM_QUESTIONS // 2), lambda shown: 0)
    asked = [(vote.recipe, vote.picture, vote.methods) for vote in store.votes()]
    assert sorted(asked) == sorted([*set(asked)] * 2)
    assert len(set(asked)) == NUM_QUESTIONS


def test_a_vote_is_for_what_was_in_that_place(store: Store) -> None:
    answer(store, joined(store), lambda shown: shown.index(min(shown)))
    assert all(vote.chosen == min(vote.methods) for vote in store.votes())


def test_a_vote_counts_once_and_changes_by_undo_alone(store: Store) -> None:
    who = joined(store)
    first = store.progress(who).current
    assert first is not None
    for _ in range(3):
        store.vote(who, first, 0, "one")
    with pytest.raises(AlreadyAnswered, match="take the answer back"):
        store.vote(who, first, 1, "two")
    [before] = store.votes()
    second = store.progress(who).current
    assert second not in (None, first)
    for _ in range(2):
        store.undo(who, first)
    assert store.votes() == []
    assert store.progress(who).current == first
    store.vote(who, first, 0, "one")  # late, or sent again: it was taken back
    assert store.votes() == []
    store.vote(who, first, 1, "three")
    [after] = store.votes()
    assert (before.chosen, after.chosen) == before.shown == after.shown
    store.vote(who, str(second), None, "four")
    with pytest.raises(AlreadyAnswered, match="later questions"):
        store.undo(who, first)
    assert len(store.votes()) == 2


def test_votes_that_belong_nowhere_are_refused(store: Store, tmp_path: Path) -> None:
    who, other = joined(store), joined(store)
    progress = store.progress(who)
    assert progress.current is not None
    assert progress.following is not None
    elsewhere = Store.begin(tmp_path / "other.sqlite", METHODS, IDENTITIES)
    stranger = elsewhere.progress(joined(elsewhere)).current
    for question in (str(stranger), str(store.progress(other).current), "never asked"):
        with pytest.raises(NotAsked, match="not asked this question"):
            store.vote(who, question, 0, "id")
        with pytest.raises(NotAsked, match="not asked this question"):
            store.shown(who, question)
    with pytest.raises(NotAsked, match="turn has not come"):
        store.vote(who, progress.following, 0, "id")
    for place in (-1, 2):
        with pytest.raises(OptionError, match=f"place is {place}; allowed are 0 to 1, and none"):
            store.vote(who, progress.current, place, "id")
    assert store.votes() == []
    database = sqlite3.connect(store.path)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.execute("PRAGMA foreign_keys = ON")
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        database.execute("INSERT INTO vote (asked, client_id) VALUES ('never asked', 'id')")
    database.close()


def test_the_same_file_goes_on_and_other_pictures_do_not_mix_in(store: Store) -> None:
    token = store.join()
    who = store.participant(token)
    assert who is not None
    store.vote(who, str(store.progress(who).current), 0, "id")
    again = Store.begin(store.path, METHODS, IDENTITIES)
    assert (again.name, again.votes(), again.progress(who)) == (store.name, store.votes(), store.progress(who))
    assert again.participant(token) == who
    assert again.participant("somebody") is None
    with pytest.raises(StudyError, match=r"begun with other pictures \(sr4/a/ours differ\)"):
        Store.begin(store.path, METHODS, {**IDENTITIES, ("sr4", "a", "ours"): "changed"})
    with pytest.raises(StudyError, match="and 5 more differ"):
        Store.begin(store.path, METHODS[:2], {key: value for key, value in IDENTITIES.items() if key[2] != "others"})


def test_pairs_and_the_best_do_not_mix(store: Store, best: Store) -> None:
    assert Store.begin(best.path, METHODS, IDENTITIES, at_once=3).name == best.name
    with pytest.raises(StudyError, match="its questions show 3 methods, not 2; go on with --ask best, or name another"):
        Store.begin(best.path, METHODS, IDENTITIES)
    with pytest.raises(StudyError, match="show 2 methods, not 3; go on with --ask pairs"):
        Store.begin(store.path, METHODS, IDENTITIES, at_once=3)


@pytest.mark.parametrize("opened", [Store, lambda path: Store.begin(path, ("a", 'b"'), {("", "x", "a"): "1"})])
def test_a_study_of_version_1_is_gone_on_with(tmp_path: Path, opened: Callable[[Path], Store]) -> None:
    path = tmp_path / "study.sqlite"
    with sqlite3.connect(path) as database:
        database.executescript(VERSION_1)
    store = opened(path)
    assert {(vote.participant, vote.recipe, vote.methods) for vote in store.votes()} == {(1, "", ("a", 'b"'))}
    told = [(vote.picture, vote.shown, vote.chosen) for vote in store.votes()]
    assert told == [("x", ('b"', "a"), 'b"'), ("y", ("a", 'b"'), "a"), ("z", ('b"', "a"), None)]
    assert (store.name, store.at_once, store.progress(1).current) == ("s", 2, "4")
    store.vote(1, "3", 0, "late")  # taken back, and asked again
    store.vote(1, "4", 0, "new")
    assert [vote.chosen for vote in store.votes()] == ['b"', "a", None, 'b"']
    assert Store(path).votes() == store.votes()
    answer(store, joined(store), lambda shown: 1)
    assert len(store.votes()) == 8
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        assert {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")} == {
            "study", "participant", "question", "asked", "vote"
        }  # fmt: skip


VERSION_1 = """
CREATE TABLE study (name TEXT NOT NULL, pictures TEXT NOT NULL, begun TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP) STRICT;
CREATE TABLE question (
    id INTEGER PRIMARY KEY, recipe TEXT NOT NULL, picture TEXT NOT NULL, first TEXT NOT NULL, second TEXT NOT NULL,
    CHECK (first <> second), UNIQUE (recipe, picture, first, second)) STRICT;
CREATE TABLE participant (
    id INTEGER PRIMARY KEY, token_sha256 TEXT NOT NULL UNIQUE,
    joined TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP) STRICT;
CREATE TABLE asked (
    token TEXT PRIMARY KEY, participant INTEGER NOT NULL REFERENCES participant, position INTEGER NOT NULL,
    question INTEGER NOT NULL REFERENCES question, first_is_left INTEGER NOT NULL CHECK (first_is_left IN (0, 1)),
    UNIQUE (participant, position), UNIQUE (participant, question)) STRICT;
CREATE TABLE vote (
    id INTEGER PRIMARY KEY, asked TEXT NOT NULL REFERENCES asked, client_id TEXT NOT NULL,
    choice TEXT NOT NULL CHECK (choice IN ('first', 'second', 'tie')),
    undone INTEGER NOT NULL DEFAULT 0 CHECK (undone IN (0, 1)),
    voted TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, UNIQUE (asked, client_id)) STRICT;
CREATE UNIQUE INDEX one_vote ON vote (asked) WHERE undone = 0;
INSERT INTO study (name, pictures) VALUES ('s', '{"x/a": "1"}');
INSERT INTO participant (token_sha256) VALUES ('t');
INSERT INTO question (recipe, picture, first, second) VALUES
    ('', 'x', 'a', 'b"'), ('', 'y', 'a', 'b"'), ('', 'z', 'a', 'b"'), ('', 'w', 'a', 'b"');
INSERT INTO asked VALUES ('1', 1, 0, 1, 0), ('2', 1, 1, 2, 1), ('3', 1, 2, 3, 0), ('4', 1, 3, 4, 0);
INSERT INTO vote (asked, client_id, choice, undone) VALUES
    ('1', 'i', 'second', 0), ('2', 'i', 'first', 0), ('3', 'late', 'first', 1), ('3', 'i', 'tie', 0);
PRAGMA application_id = 0x73757072;
PRAGMA user_version = 1;
"""


def test_files_that_are_no_study(store: Store, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database at all, by far" * 100)
    with sqlite3.connect(tmp_path / "foreign") as database:
        database.execute("CREATE TABLE anything (x)")
    with sqlite3.connect(store.path) as database:
        database.execute("PRAGMA user_version = 3")
    for path, said in {"none": "no such file", "text": "not a database", "foreign": "not the database of a study",
                       "study.sqlite": "of version 3; this supir reads and writes 2"}.items():  # fmt: skip
        with pytest.raises(StudyError, match=said):
            Store(tmp_path / path)
        if path != "none":
            with pytest.raises(StudyError, match=said):
                Store.begin(tmp_path / path, METHODS, IDENTITIES)


def test_many_at_once(store: Store) -> None:
    def one(number: int) -> None:
        who = joined(store, 6)
        while (question := store.progress(who).current) is not None:
            for client_id in ("one", "one", "two"):
                try:
                    store.vote(who, question, 0, client_id)
                except AlreadyAnswered:
                    assert client_id == "two"

    def same(number: int) -> str:
        try:
            store.vote(shared, question, 0, f"window {number % 4}")
        except AlreadyAnswered:
            return "refused"
        return "taken"

    shared = joined(store)
    question = str(store.progress(shared).current)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(one, range(8)))
        assert list(threads.map(same, range(8))).count("taken") == 2  # the first, and the same request again
    votes = store.votes()
    assert len(votes) == 8 * 6 + 1
    assert len({(vote.participant, vote.recipe, vote.picture, vote.methods) for vote in votes}) == len(votes)


# What they say


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (5, 10), (8, 10), (81, 263), (1000, 1000)])
def test_intervals_and_test_are_those_of_scipy(successes: int, trials: int) -> None:
    independent = scipy.stats.binomtest(successes, trials)
    assert wilson(successes, trials) == pytest.approx(tuple(independent.proportion_ci(method="wilson")), abs=1e-12)
    assert sign_test(successes, trials - successes) == pytest.approx(independent.pvalue, rel=1e-9)


def test_the_wilson_interval_of_a_textbook() -> None:
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, Table I, method 3


def test_the_cluster_interval_is_that_of_scipys_bootstrap() -> None:
    counts = np.random.default_rng(3).integers(1, 30, (25, 2))
    independent = scipy.stats.bootstrap(
        (counts[:, 0], counts[:, 1]), lambda first, second: first.sum(-1) / (first + second).sum(-1), paired=True,
        vectorized=False, method="percentile", n_resamples=4000, rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert cluster_interval(counts) == pytest.approx(tuple(independent), abs=0.01)
    assert cluster_interval(counts) == cluster_interval(counts)


def test_votes_of_one_mind_are_worth_one_vote() -> None:
    """Twenty people who always say the same: the interval over people is that of twenty votes, not of two hundred."""
    votes = [
        Vote(participant=who, recipe="", picture=str(k), methods=("a", "b"), shown=("a", "b") if k % 2 else ("b", "a"),
             chosen="a" if who < 14 else "b")
        for who in range(20) for k in range(10)
    ]  # fmt: skip
    [found] = preferences(votes)
    assert (found.recipe, found.first_votes, found.second_votes, found.ties) == (ALL, 140, 60, 0)
    assert (found.participants, found.pictures, found.preference, found.left) == (20, 10, 0.7, 0.5)
    assert found.wilson == pytest.approx((0.633, 0.759), abs=1e-3)
    low, high = scipy.stats.binom.ppf([0.025, 0.975], 20, 0.7) / 20
    assert found.by_participants == pytest.approx((low, high), abs=0.03)
    assert found.by_pictures == (0.7, 0.7)


def test_the_share_of_each_method_among_the_best(best: Store) -> None:
    """A method nobody chooses has a row; answers that none is the best count for nobody."""
    first_places = 0

    def choose(shown: tuple[str, ...]) -> int | None:
        nonlocal first_places
        place = next(places, None)
        first_places += place is not None and shown[0] == place
        return None if place is None else shown.index(place)

    for recipe_votes in (["ours"] * 5 + ["theirs"] * 2 + [None], ["ours"] * 8):
        places = iter(recipe_votes)
        answer(best, joined(best), choose)
    found = {(one.recipe, one.first): one for one in preferences(best.votes())}
    assert list(found) == [(recipe, method) for recipe in (ALL, "sr4", "sr8") for method in METHODS]
    shares = [found[ALL, method] for method in METHODS]
    assert [(one.first_votes, one.second_votes, one.ties) for one in shares] == [(13, 2, 1), (2, 13, 1), (0, 15, 1)]
    assert [one.wilson for one in shares] == [wilson(13, 15), wilson(2, 15), wilson(0, 15)]
    assert {(one.second, one.p_value, one.left) for one in shares} == {(None, None, first_places / 15)}
    for recipe in ("sr4", "sr8"):
        assert sum(found[recipe, method].preference or 0 for method in METHODS) == pytest.approx(1)
    shown = report(best.path).stdout
    assert "| recipe | best | votes |" in shown
    assert "| all | ours | 13 : 2 | 1 | 86.7 | 62.1 to 96.3 |" in shown
    assert "by chance 100 by the number of methods" in shown
    [line] = [line for line in csv.DictReader(io.StringIO(report(best.path, "--csv").stdout))
              if (line["recipe"], line["first"]) == ("all", "others")]  # fmt: skip
    assert (line["second"], line["first_votes"], line["preference"], line["p_value"]) == ("", "0", "0.000000", "")


def report(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["study", "report", *map(str, arguments)])


def test_the_report(store: Store) -> None:
    assert "no votes yet" in report(store.path).stderr

    def choose(shown: tuple[str, ...]) -> int | None:
        return None if "others" in shown else shown.index("ours")

    for _ in range(3):
        answer(store, joined(store), choose)
    shown = report(store.path)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout == report(store.path).stdout
    assert "| all | ours over theirs | 24 : 0 | 0 | 100.0 | 86.2 to 100.0 | 100.0 to 100.0 |" in shown.stdout
    assert "| sr8 | theirs over others | 0 : 0 | 12 | – | – | – | – | 1.0000 | 3 | 4 | – |" in shown.stdout
    assert "independent" in shown.stdout
    rows = json.loads(report(store.path, "--json").stdout)
    assert [row["recipe"] for row in rows] == ["all"] * 3 + ["sr4"] * 3 + ["sr8"] * 3
    assert rows[0]["p_value"] == 1.0
    lines = list(csv.DictReader(io.StringIO(report(store.path, "--csv").stdout)))
    assert [line["first"] for line in lines] == [row["first"] for row in rows]
    ours = next(line for line in lines if (line["first"], line["second"]) == ("ours", "theirs"))
    assert (ours["first_votes"], ours["preference"], ours["wilson_low"]) == ("24", "1.000000", "0.862024")
    assert report(store.path, "--csv", "--json").exit_code == 2
    assert report(store.path.with_name("none")).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "name --benchmark and --methods, or --method"),
        (("--method", "ours=one"), 2, "a comparison needs two"),
        (("--method", "ours"), 2, "write NAME=FOLDER"),
        (("--method", "ours=one", "--method", "ours=two"), 2, "each name once"),
        (("--method", "ours=one", "--method", "input=two"), 2, "cannot be called 'input'"),
        (("--method", "ours=one", "--method", "theirs=three"), 1, "three: does not exist"),
        (("--method", "ours=one", "--method", "theirs=four"), 1, "no picture that every method has"),
        (("--method", "ours=one", "--method", "theirs=two", "--host", "192.0.2.1"), 1, "cannot listen there"),
        (("--ask", "best", *(f"--method={k}=one" for k in range(10))), 2, "best shows 9 methods at most, not 10"),
    ],
)
def test_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, name in {"one": "a", "two": "a", "four": "b"}.items():
        save(tmp_path / folder / f"{name}.png", 0)
    done = CliRunner().invoke(app, ["study", "serve", *arguments])
    assert done.exit_code == code, done.output
    assert said in " ".join(done.stderr.replace("│", " ").split())

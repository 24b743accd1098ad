"""Studies on disk: what is compared, who was asked what, votes that count once, and what they say."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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


def joined(store: Store, num_questions: int | None = None) -> int:
    who = store.participant(store.join(num_questions))
    assert who is not None
    return who


def answer(store: Store, who: int, choose: Callable[[str, str], str]) -> None:
    """Answer all that is left; ``choose`` is told the methods on the left and on the right."""
    while (question := store.progress(who).current) is not None:
        left, right = (store.shown(who, question, side)[2] for side in ("left", "right"))
        store.vote(who, question, choose(left, right), f"id of {question}")


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
            recipe, picture, left = store.shown(who, question, "left")
            order.append((recipe, picture, left, store.shown(who, question, "right")[2]))
            assert store.shown(who, question, INPUT) == (recipe, picture, INPUT)
            store.vote(who, question, "tie", "an id")
        orders.append(order)
    for order in orders:
        assert len({(*question[:2], *sorted(question[2:])) for question in order}) == NUM_QUESTIONS
    assert len({tuple(order) for order in orders}) == 8
    on_the_left = sum(vote.first_is_left for vote in store.votes())
    assert scipy.stats.binomtest(on_the_left, 8 * NUM_QUESTIONS).pvalue > 1e-6


def test_a_subset_goes_to_what_has_fewest_votes(store: Store) -> None:
    for _ in range(4):
        answer(store, joined(store, NUM_QUESTIONS // 2), lambda left, right: "left")
    asked = [(vote.recipe, vote.picture, vote.first, vote.second) for vote in store.votes()]
    assert sorted(asked) == sorted([*set(asked)] * 2)
    assert len(set(asked)) == NUM_QUESTIONS


def test_a_vote_is_for_what_was_on_that_side(store: Store) -> None:
    answer(store, joined(store), lambda left, right: "left" if left < right else "right")
    for vote in store.votes():
        assert getattr(vote, vote.choice) == min(vote.first, vote.second)


def test_a_vote_counts_once_and_changes_by_undo_alone(store: Store) -> None:
    who = joined(store)
    first = store.progress(who).current
    assert first is not None
    for _ in range(3):
        store.vote(who, first, "left", "one")
    with pytest.raises(AlreadyAnswered, match="take the answer back"):
        store.vote(who, first, "right", "two")
    [before] = store.votes()
    second = store.progress(who).current
    assert second not in (None, first)
    for _ in range(2):
        store.undo(who, first)
    assert store.votes() == []
    assert store.progress(who).current == first
    store.vote(who, first, "left", "one")  # late, or sent again: it was taken back
    assert store.votes() == []
    store.vote(who, first, "right", "three")
    [after] = store.votes()
    assert {before.choice, after.choice} == {"first", "second"}
    store.vote(who, str(second), "tie", "four")
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
            store.vote(who, question, "left", "id")
    with pytest.raises(NotAsked, match="turn has not come"):
        store.vote(who, progress.following, "left", "id")
    with pytest.raises(OptionError, match="choice is 'both'; allowed are left, right, tie"):
        store.vote(who, progress.current, "both", "id")
    with pytest.raises(NotAsked, match="no picture 'hq'"):
        store.shown(who, progress.current, "hq")
    assert store.votes() == []
    database = sqlite3.connect(store.path)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.execute("PRAGMA foreign_keys = ON")
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        database.execute("INSERT INTO vote (asked, client_id, choice) VALUES ('never asked', 'id', 'tie')")
    database.close()


def test_the_same_file_goes_on_and_other_pictures_do_not_mix_in(store: Store) -> None:
    token = store.join()
    who = store.participant(token)
    assert who is not None
    store.vote(who, str(store.progress(who).current), "left", "id")
    again = Store.begin(store.path, METHODS, IDENTITIES)
    assert (again.name, again.votes(), again.progress(who)) == (store.name, store.votes(), store.progress(who))
    assert again.participant(token) == who
    assert again.participant("somebody") is None
    with pytest.raises(StudyError, match=r"begun with other pictures \(sr4/a/ours differ\)"):
        Store.begin(store.path, METHODS, {**IDENTITIES, ("sr4", "a", "ours"): "changed"})
    with pytest.raises(StudyError, match="and 5 more differ"):
        Store.begin(store.path, METHODS[:2], {key: value for key, value in IDENTITIES.items() if key[2] != "others"})


def test_files_that_are_no_study(store: Store, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database at all, by far" * 100)
    with sqlite3.connect(tmp_path / "foreign") as database:
        database.execute("CREATE TABLE anything (x)")
    with sqlite3.connect(store.path) as database:
        database.execute("PRAGMA user_version = 2")
    for path, said in {"none": "no such file", "text": "not a database", "foreign": "not the database of a study",
                       "study.sqlite": "of version 2; this supir reads and writes 1"}.items():  # fmt: skip
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
                    store.vote(who, question, "left", client_id)
                except AlreadyAnswered:
                    assert client_id == "two"

    def same(number: int) -> str:
        try:
            store.vote(shared, question, "left", f"window {number % 4}")
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
    assert len({(vote.participant, vote.recipe, vote.picture, vote.first, vote.second) for vote in votes}) == len(votes)


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
        Vote(participant=who, recipe="", picture=str(k), first="a", second="b",
             choice="first" if who < 14 else "second", first_is_left=k % 2 == 0)
        for who in range(20) for k in range(10)
    ]  # fmt: skip
    [found] = preferences(votes)
    assert (found.recipe, found.first_votes, found.second_votes, found.ties) == (ALL, 140, 60, 0)
    assert (found.participants, found.pictures, found.preference, found.left) == (20, 10, 0.7, 0.5)
    assert found.wilson == pytest.approx((0.633, 0.759), abs=1e-3)
    low, high = scipy.stats.binom.ppf([0.025, 0.975], 20, 0.7) / 20
    assert found.by_participants == pytest.approx((low, high), abs=0.03)
    assert found.by_pictures == (0.7, 0.7)


def report(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["study", "report", *map(str, arguments)])


def test_the_report(store: Store) -> None:
    assert "no votes yet" in report(store.path).stderr

    def choose(left: str, right: str) -> str:
        return "tie" if "others" in (left, right) else "left" if left == "ours" else "right"

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

"""A manifest's rows, and every way in which one can be wrong: all told at once, none by another error."""

import json
from pathlib import Path

import pytest

from memo_avatar.portrait.face_crop import DEFAULT_MARGIN
from memo_avatar.voice.emotions import EMOTIONS
from standalone.arguments import CommandError, parse_video
from standalone.batch import manifest
from standalone.batch.arguments import LOCAL, RowParser, parse_batch
from standalone.batch.manifest import COLUMNS, Row, read_manifest


def write(folder: Path, text: str, name: str = "jobs.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def read(folder: Path, text: str, name: str = "jobs.csv") -> tuple[list[Row], list[str]]:
    rows, problems = read_manifest(write(folder, text, name))
    return rows, [str(problem) for problem in problems]


def test_a_csv_names_videos_and_options(tmp_path: Path) -> None:
    rows, problems = read(
        tmp_path, "id,image,audio,emotion,steps\nanna,a.png,a.wav,happy,\nbob,b.png,../b.wav,,4\n"
    )
    assert problems == []
    assert [(row.line, row.id) for row in rows] == [(2, "anna"), (3, "bob")]
    assert rows[0].cells == {
        "image": str(tmp_path / "a.png"),
        "audio": str(tmp_path / "a.wav"),
        "emotion": "happy",
    }
    assert rows[1].cells["audio"] == str(tmp_path / "../b.wav") and rows[1].cells["steps"] == "4"


def test_json_lines_say_the_same(tmp_path: Path) -> None:
    lines = [
        {"id": "anna", "image": "a.png", "audio": "a.wav", "target-speedup": 2, "paste_back": True},
        {"id": 7, "image": "b.png", "audio": "/b.wav", "emotion": None, "face-crop": True},
    ]
    rows, problems = read(tmp_path, "\n\n".join(map(json.dumps, lines)), "jobs.jsonl")
    assert problems == []
    assert [(row.line, row.id) for row in rows] == [(1, "anna"), (3, "7")]
    assert rows[0].cells["target_speedup"] == "2" and rows[0].cells["paste_back"] is True
    assert rows[1].cells == {
        "image": str(tmp_path / "b.png"),
        "audio": str(Path("/b.wav")),
        "face_crop": True,
    }


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffid;image;audio\r\nanna;a.png;a.wav\r\n",
        "id\timage\taudio\nanna\ta.png\ta.wav\n",
        '"id","image","audio"\n"anna","a.png","a.wav"\n,,\n',
        "id , --image , AUDIO\n anna , a.png , a.wav ",
    ],
    ids=["spreadsheet", "tabs", "quoted and empty rows", "spaces and dashes"],
)
def test_what_spreadsheets_write(text: str, tmp_path: Path) -> None:
    rows, problems = read(tmp_path, text)
    assert problems == []
    assert [row.id for row in rows] == ["anna"]
    assert rows[0].cells == {"image": str(tmp_path / "a.png"), "audio": str(tmp_path / "a.wav")}


def test_every_option_of_the_command_is_a_column() -> None:
    arguments = vars(parse_video(["--image", "p", "--audio", "a", "--output", "v"]))
    assert set(COLUMNS) == set(arguments) - {"output", "device", "codec", "speakers"}


@pytest.mark.parametrize(("text", "flag"), [("yes", True), ("TRUE", True), ("0", False), ("no", False)])
def test_flags(text: str, flag: bool, tmp_path: Path) -> None:
    (row,), _ = read(tmp_path, f"id,image,audio,paste-back\na,a.png,a.wav,{text}")
    assert RowParser({"paste_back": not flag}).parse(row.cells, Path("a.mp4")).paste_back is flag


def test_an_option_whose_value_may_be_left_out(tmp_path: Path) -> None:
    lines = [
        '{"id": "a", "face-crop": true}',
        '{"id": "b", "face-crop": false}',
        '{"id": "c", "face-crop": 0.2}',
    ]
    rows, _ = read(tmp_path, "\n".join(lines), "jobs.jsonl")
    parser = RowParser({"image": Path("p"), "audio": Path("a"), "face_crop": 0.9})
    assert [parser.parse(row.cells, Path("v")).face_crop for row in rows] == [DEFAULT_MARGIN, None, 0.2]


def test_a_row_goes_before_the_command_line_and_that_before_the_defaults(tmp_path: Path) -> None:
    line = ["jobs.csv", "--output-folder", "out", "--steps", "7", "--emotion", "sad", "--image", "me.png"]
    options = parse_batch(line)
    (row,), _ = read(tmp_path, "id,audio,emotion\na,a.wav,happy")
    video = RowParser(options.given).parse(row.cells, Path("out/a.mp4"))
    assert (video.steps, video.seed, video.image) == (7, 42, Path("me.png"))
    assert video.emotion.labels == ((0.0, EMOTIONS.index("happy")),)
    assert video.output == Path("out/a.mp4")


def test_where_to_work() -> None:
    line = ["jobs.csv", "--output-folder", "out"]
    assert parse_batch(line).ray is None
    assert parse_batch([*line, "--ray"]).ray == LOCAL
    cluster = parse_batch([*line, "--ray", "10.0.0.1:6379", "--workers", "3", "--cards-per-worker", "0.5"])
    assert (cluster.ray, cluster.workers, cluster.cards_per_worker) == ("10.0.0.1:6379", 3, 0.5)
    with pytest.raises(CommandError, match="expected --ray with --workers and --cards-per-worker"):
        parse_batch([*line, "--workers", "3"])
    with pytest.raises(CommandError, match="unrecognized arguments: --output"):
        parse_batch([*line, "--output", "v.mp4"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",a.png,a.wav", "expected an id, which names the video, but got none (id)."),
        ("../a,a.png,a.wav", "expected an id that can name a file but got"),
        ("a/b,a.png,a.wav", "expected an id that can name a file but got"),
        ("aux,a.png,a.wav", "expected an id that can name a file but got one that Windows keeps"),
        (f"{'n' * 252},a.png,a.wav", "expected an id that can name a file but got one of 256"),
        ("a,a\x00.png,a.wav", "expected plain text but got 'a\\x00.png'"),
        ("a,\x1b[2J,a.wav", "expected plain text but got '\\x1b[2J'"),
        (f"a,{'p' * 20_000},a.wav", "expected at most 10000 letters but got 20000"),
        ("a,a.png,a.wav,more", "expected 3 cells but got 4 (CSV)."),
        ('a,"a.png,a.wav', "expected CSV but got: unexpected end of data"),
    ],
)
def test_a_bad_row_is_told_and_hides_no_other(text: str, message: str, tmp_path: Path) -> None:
    rows, problems = read(tmp_path, f"id,image,audio\nfirst,a.png,a.wav\n{text}\n")
    assert [row.id for row in rows] == ["first"]
    assert len(problems) == 1
    assert problems[0].startswith("line 3") and message in problems[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a JSON object but got: an end too early, in line 1, column 2 (JSON)."),
        ("[1]", "expected a JSON object but got: a list of 1 (JSON)."),
        ('{"id": "a", "id": "b"}', "a name twice (JSON)."),
        ('{"id": "a", "steps": NaN}', "NaN, which is no number (JSON)."),
        ('{"id": "a", "image": ["p"]}', "expected text or a number but got a list (cell)."),
        ('{"id": "a", "target-speed": 2}', "got 'target-speed' (column). Did you mean target-speedup?"),
        ('{"id": "a", "colour": 2}', "expected id or an option but got 'colour' (column). teacache_memo.py"),
        ('{"id": "a", "device": "cpu"}', "got one: a batch runs on one device, or on its workers' cards."),
        ('{"id": "a", "output": "v.mp4"}', "got one: rows name their files by id."),
        ('{"id": "a", "paste-back": "perhaps"}', "expected yes or no but got 'perhaps' (paste-back)."),
        ('{"id": "a", "steps": false}', "expected a value but got false (steps)."),
        ("[" * 100_000, "got: more than 32 lists and objects within each other"),
        (f'{{"id": "a", "seed": {"9" * 10_000}}}', "line 1"),
    ],
    ids=lambda value: value[:30],
)
def test_a_bad_line_of_json(text: str, message: str, tmp_path: Path) -> None:
    rows, problems = read(tmp_path, f'{text}\n{{"id": "b"}}', "jobs.jsonl")
    assert [row.id for row in rows] == ["b"]
    assert len(problems) == 1 and message in problems[0]
    assert len(problems[0]) < 500


@pytest.mark.parametrize("twin", ["anna", "Anna", "a\u006e\u006ea"])
def test_ids_that_some_system_takes_for_one_file(twin: str, tmp_path: Path) -> None:
    rows, problems = read(tmp_path, f"id,image\nanna,a.png\n{twin},b.png\n")
    assert [row.id for row in rows] == ["anna"]
    assert problems == [
        f"line 3 ('{twin}'): expected an id of its own but got that of line 2 (id). Give it another."
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("jobs.txt", b"id\n", "expected a manifest ending in .csv, .tsv or .jsonl but got jobs.txt"),
        ("jobs.csv", b"", "expected a row for every video but got none"),
        ("jobs.csv", b"id,image\n", "expected a row for every video but got none"),
        ("jobs.csv", b"id,id\na,b\n", "expected every column once but got 'id' twice"),
        ("jobs.csv", "id\nJürgen".encode("latin-1"), "expected text in UTF-8 but got byte 0xfc at 4"),
        ("jobs.jsonl", b"\xff\xfe{", "expected text in UTF-8 but got byte 0xff at 0"),
    ],
)
def test_no_manifest_at_all(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CommandError) as error:
        read_manifest(tmp_path / name)
    assert message in str(error.value)


def test_what_is_no_file_and_what_is_too_large(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="expected a manifest but got: No such file or directory"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(CommandError, match="expected a manifest but got"):
        read_manifest(tmp_path / "folder.csv")
    endless = tmp_path / "endless.csv"
    endless.symlink_to("/dev/zero")
    with pytest.raises(CommandError, match="expected a manifest but got: a folder or device"):
        read_manifest(endless)
    with (tmp_path / "sparse.csv").open("wb") as stream:
        stream.truncate(2**30)
    with pytest.raises(CommandError, match="expected a manifest of at most 64 MiB but got more"):
        read_manifest(tmp_path / "sparse.csv")


def test_a_column_named_message_is_for_people(tmp_path: Path) -> None:
    line = json.dumps({"id": "a", "image": "a.png", "message": "expected sound but got none"})
    (row,), problems = read(tmp_path, line, "failed.jsonl")
    assert problems == [] and set(row.cells) == {"image"}


def test_the_command_line_of_a_row_is_checked_as_the_commands_own() -> None:
    parser = RowParser({})
    files = {"image": "p.png", "audio": "a.wav"}
    with pytest.raises(CommandError, match="argument --steps: expected a whole number from 1 to 1000"):
        parser.parse({**files, "steps": "0"}, Path("a.mp4"))
    with pytest.raises(CommandError, match="expected an image and an audio but got no --audio"):
        parser.parse({"image": "p.png"}, Path("a.mp4"))
    assert parser.parse({**files, "image": "--image"}, Path("a.mp4")).image == Path("--image")


@pytest.mark.parametrize("bad", [False, True], ids=["good rows", "bad rows"])
def test_more_rows_than_are_kept_in_memory_are_refused(
    bad: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "MOST_ROWS", 3)
    lines = [json.dumps({"id": "" if bad else str(number)}) for number in range(4)]
    assert len(read_manifest(write(tmp_path, "\n".join(lines[:3]), "jobs.jsonl"))[bad]) == 3
    with pytest.raises(CommandError, match=r"expected a manifest of at most 3 rows but got more .* Split it"):
        read_manifest(write(tmp_path, "\n".join(lines), "jobs.jsonl"))

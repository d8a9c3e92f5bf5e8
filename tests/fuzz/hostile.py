"""Hostile files and values, each made here, read in a process that has 200 MiB more than it starts with.

    PYTHON -m tests.fuzz.hostile FOLDER

prints a JSON object: for each case, how it ended, its seconds of the processor and its message.
"""

from __future__ import annotations

import io
import json
import math
import os
import resource
import shutil
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from memo_avatar.checkpoint.companions import read_settings, read_vae, read_wav2vec2
from memo_avatar.checkpoint.load import open_checkpoint
from memo_avatar.files.disk import try_place
from memo_avatar.files.json_file import read_json
from memo_avatar.files.weights_file import read_all
from memo_avatar.portrait.face_crop import check_margin, parse_box
from memo_avatar.portrait.images import open_image
from memo_avatar.voice.emotion_files import read_classifier, read_emotion2vec
from memo_avatar.voice.emotions import parse_plan
from standalone.arguments import parse_video
from standalone.face_inputs import load_face_embedding
from teacache_core import Calibration

ROOM = 200 * 2**20
DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
OURS = ("memo_avatar", "standalone", "teacache_core")
ENTRY: dict[str, Any] = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
MANY = 20_000

Case = Callable[[Path], object]


def file_of(data: bytes, read: Callable[[Path], object], name: str = "m.safetensors", size: int = 0) -> Case:
    """A file with these bytes, made ``size`` long without taking room, and its reader."""

    def case(folder: Path) -> object:
        path = folder / name
        path.write_bytes(data)
        if size:
            os.truncate(path, size)
        return read(path)

    return case


def header(tensors: Any, body: bytes = b"\0" * 4, text: str | None = None) -> bytes:
    encoded = (json.dumps(tensors) if text is None else text).encode("utf-8", "surrogatepass")
    return len(encoded).to_bytes(8, "little") + encoded + body


def entry(**changes: Any) -> bytes:
    return header({"a": ENTRY | changes})


def raw(shape: str = "[1]", offsets: str = "[0,4]") -> bytes:
    """A header whose numbers Python would not write."""
    return header(None, text=f'{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}')


def same_place(count: int) -> dict[str, Any]:
    place = {"dtype": "F32", "shape": [250_000], "data_offsets": [0, 10**6]}
    return {f"t{index}": place for index in range(count)}


def layers(count: int) -> dict[str, Any]:
    name = "diffusion_net.down_blocks.0.resnets.{}.conv1.weight"
    return {name.format(i): ENTRY | {"data_offsets": [4 * i, 4 * i + 4]} for i in range(count)}


HEADERS: dict[str, bytes] = {
    "empty": b"",
    "seven bytes": b"\1\0\0\0\0\0\0",
    "header longer than any file": (2**64 - 1).to_bytes(8, "little") + b"{}",
    "header longer than this file": (10**6).to_bytes(8, "little") + b"{}",
    "no JSON": header(None, text="{never closed"),
    "an array": header([]),
    "bytes that are no text": (20).to_bytes(8, "little") + b'{"\xff\xfe' + b" " * 20,
    "overlapping tensors": header(same_place(8000), b"\0" * 10**6),
    "a gap": header({"a": ENTRY, "b": ENTRY | {"data_offsets": [8, 12]}}, b"\0" * 12),
    "a name twice": header(None, text=f'{{"a":{json.dumps(ENTRY)},"a":{json.dumps(ENTRY)}}}'),
    "a dimension of 4000 digits": raw(shape=f"[{'9' * 4000}]"),
    "a dimension of 5000 digits": raw(shape=f"[{'9' * 5000}]"),
    "a negative dimension": entry(shape=[-1]),
    "an infinite dimension": raw(shape="[1e999]"),
    "a dimension that is no number": raw(shape="[NaN]"),
    "half a dimension": entry(shape=[0.5]),
    "true as a dimension": entry(shape=[True]),
    "text as a dimension": entry(shape=["1"]),
    "100000 dimensions": entry(shape=[1] * 100_000),
    "nothing times everything": entry(shape=[0, 2**62, 2**62], data_offsets=[0, 0]),
    "more elements than 64 bits count": entry(shape=[2**32, 2**32]),
    "offsets below zero": entry(data_offsets=[-4, 0]),
    "offsets the wrong way round": entry(data_offsets=[4, 0]),
    "offsets of 4000 digits": raw(offsets=f"[0,{'9' * 4000}]"),
    "offsets beyond the file": entry(shape=[10**9], data_offsets=[0, 4 * 10**9]),
    "three offsets": entry(data_offsets=[0, 4, 8]),
    "a name of 5 MB": header({"x" * 5_000_000: ENTRY}),
    "a name of 20 MB": header({"x" * 20_000_000: ENTRY}),
    "a name that clears the screen": header({"\x1b[2J\x07": ENTRY}),
    "half a surrogate as a name": header(None, text=f'{{"\\ud800":{json.dumps(ENTRY)}}}'),
    "an entry that is a list": header({"a": [1, 2, 3]}),
    "an entry with more in it": entry(evil=1),
    "a dtype of 1 MB": entry(dtype="F" * 10**6),
    "a dtype that is a list": entry(dtype=["F32"]),
    "metadata that is a number": header({"__metadata__": {"a": 1}, "a": ENTRY}),
    "metadata that is a list": header({"__metadata__": [1], "a": ENTRY}),
    "metadata without end": header(None, text='{"__metadata__":' + "[" * 10**6),
    "objects without end": header(None, text='{"a":' * 10**6),
    "too many tensors": header({f"t{index}": ENTRY for index in range(MANY)}),
    "lists without number": header(None, text='{"a":[' + "[]," * 2_600_000 + "[]]}"),
    "objects without number": header(None, text='{"a":{"shape":[' + "{}," * 2_600_000 + "0]}}"),
    "a pickle": b"\x80\x02}q\x00.",
    "a zip": b"PK\x03\x04" + b"\0" * 100,
    "a web page": b"<!DOCTYPE html><html>",
}
DEEP = b'{"a": ' + b"[" * 500_000
JSONS: dict[str, bytes] = {
    "nothing": b"",
    "a list": b"[]",
    "null": b"null",
    "lists without end": DEEP,
    "objects without end": b'{"a":' * 100_000,
    "fifty levels": b'{"a":' + b"[" * 50 + b"]" * 50 + b"}",
    "a number beyond all use": b'{"a": 1e999}',
    "a number of 5000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "NaN": b'{"a": NaN}',
    "a name twice": b'{"a": 1, "a": 2}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "no text": b"\xff\xfe\xfd",
    "lists without number": b'{"a":[' + b"[]," * 10_000_000 + b"0]}",
    "zeros without number": b'{"a":[' + b"0," * 16_000_000 + b"0]}",
    "names without number": ("{" + ",".join(f'"{n}":0' for n in range(2_000_000)) + "}").encode(),
    "one letter that widens all": b'{"a":"' + b"x" * 30_000_000 + "\U0001f600".encode() + b'"}',
    "100 MB": b'{"a": "' + b"x" * (100 * 2**20) + b'"}',
}
SETTINGS = (
    '{"size": 40000}',
    '{"size": 1e999}',
    '{"size": "big"}',
    '{"size": null}',
    '{"size": -8}',
    '{"size": 9}',
    '{"size": true}',
    '{"size": 96',
    '{"guidance_scale": 1e999}',
    '{"guidance_scale": [1]}',
)
CALIBRATIONS = ('{"format": "teacache-calibration", "version": 1}', '{"version": "1"}', "{}")
CONFIGS: tuple[tuple[str, str, Any], ...] = (
    ("vae", "block_out_channels", [10**9] * 4),
    ("vae", "block_out_channels", [8192] * 8),
    ("vae", "layers_per_block", 10**9),
    ("vae", "norm_num_groups", 0),
    ("vae", "_class_name", "\x1b[2J" + "x" * 10**5),
    ("wav2vec2", "num_hidden_layers", 10**9),
    ("wav2vec2", "conv_dim", [8192] * 10**5),
    ("wav2vec2", "hidden_size", 2**62),
    ("wav2vec2", "conv_stride", [0] * 7),
    ("diffusion_net", "attention_head_dim", 0),
    ("diffusion_net", "attention_head_dim", [8] * 10**5),
    ("reference_net", "norm_num_groups", 10**12),
    ("reference_net", "norm_eps", -1.0),
    ("diffusion_net", "motion_module_kwargs", [1]),
    ("diffusion_net", "act_fn", "x" * 10**6),
)
REQUIRED = ["--image", "p", "--audio", "a", "--output", "v.mp4"]
TEXTS: dict[str, Case] = {
    "emotions at 1e308": lambda _: parse_plan("0 happy, 1e308 sad"),
    "emotions of 5000 digits": lambda _: parse_plan("9" * 5000),
    "5 MB of emotions": lambda _: parse_plan("0 happy," * 600_000),
    "a box of minus minus": lambda _: parse_box("1,2,3,--5"),
    "a box of 5000 digits": lambda _: parse_box(f"1,2,3,{'9' * 5000}"),
    "5 MB of box": lambda _: parse_box("1," * 2_500_000),
    "a margin that is no number": lambda _: check_margin(float("nan")),
    "a size of 5000 digits": lambda _: parse_video([*REQUIRED, "--size", "9" * 5000]),
    "30 million steps": lambda _: parse_video([*REQUIRED, "--steps", "30000000"]),
    "an infinite guidance": lambda _: parse_video([*REQUIRED, "--guidance-scale", "1e999"]),
    "a name with a NUL": lambda folder: try_place(folder / "a\0b.mp4"),
    "a name of 100000 letters": lambda folder: try_place(folder / ("w" * 100_000)),
}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, depth: int = 8, colours: int = 2, rows: bytes = b"\0" * 64 * 193) -> bytes:
    size = struct.pack(">IIBBBBB", 64, 64, depth, colours, 0, 0, 0)
    body = [chunk(b"IHDR", size), *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def tiff(tile: int) -> bytes:
    """A picture of 64x64 in one deflated tile of this side."""
    kinds = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 324: 200, 325: 9}
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in kinds.items())
    start = b"II*\0\x08\0\0\0" + struct.pack("<H", len(kinds)) + tags + b"\0" * 4
    return start.ljust(200, b"\0") + zlib.compress(b"")


def scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes so often."""
    stream = io.BytesIO()
    Image.new("L", (2000, 2000)).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * count + data[-2:]


GIF = b"GIF89a\x40\0\x40\0\0\0\0"
PICTURES: dict[str, tuple[bytes, int]] = {
    "WebP of 20 GB": (b"RIFF\xff\xff\xff\xffWEBPVP8L\xff\xff\xff\xff/" + b"\0" * 20, 20 * 10**9),
    "WebP of 3 GB": (b"RIFF\xff\xff\xff\xffWEBPVP8L\xff\xff\xff\xff/" + b"\0" * 20, 3 * 10**9),
    "PPM, a comment without end": (b"P6\n#", 10**9),
    "PPM, blanks without end": (b"P6" + b" " * 3_000_000, 0),
    "PNG, a chunk of 4 GB": (png(chunk(b"teSt", b""))[:37] + b"\xff\xff\xff\xffteSt", 5 * 10**9),
    "PNG, chunks without number": (png(chunk(b"teSt", b"") * 800_000), 0),
    "PNG, more transparency than palette": (
        png(chunk(b"PLTE", b"\0\1\2"), chunk(b"tRNS", b"\0" * 500), colours=3, rows=b"\0" * 64 * 65),
        0,
    ),
    "GIF, remarks without number": (GIF + b"!\xfe\x01a\0" * 3_000_000 + b";", 0),
    "GIF, a remark of 100 MB": (GIF + b"!\xfe" + (b"\xff" + b"a" * 255) * 400_000, 0),
    "GIF, nothing without end": (GIF, 10**9),
    "JPEG, filling without end": (b"\xff\xd8" + b"\xff" * 3_000_000, 0),
    "JPEG, 60 MB of notes": (
        b"\xff\xd8" + (b"\xff\xe1\xff\xffExif\0\0" + b"a" * 65527) * 900 + b"\xff\xd9",
        0,
    ),
    "JPEG, scans without number": (scans(3000), 0),
    "TIFF, a tile of 256 million pixels": (tiff(2**14), 0),
    "TIFF, a tile beyond all numbers": (tiff(2**30), 0),
}
NET = "modality_encoders.AUDIO.local_encoder.conv_layers.0.0.weight"


def wide(name: str, *shape: int) -> bytes:
    """One tensor in 16 bits, all of it a hole in the file."""
    size = 2 * math.prod(shape)
    return header({name: {"dtype": "BF16", "shape": list(shape), "data_offsets": [0, size]}}, b"")


def hole(data: bytes, size: int, read: Callable[[Path], object], name: str) -> Case:
    return file_of(data, read, name, len(data) + size)


def checkpoint_with(part: str, name: str, value: Any) -> Case:
    """The demo with one value of a config changed."""

    def case(folder: Path) -> object:
        for inner in ("diffusion_net", "reference_net", "image_proj", "audio_proj", "vae", "wav2vec2"):
            shutil.copytree(DEMO / inner, folder / inner)
        path = folder / part / "config.json"
        path.write_text(
            json.dumps(json.loads(path.read_text(encoding="utf-8")) | {name: value}), encoding="utf-8"
        )
        read = {"vae": read_vae, "wav2vec2": read_wav2vec2}.get(part)
        return open_checkpoint(folder) if read is None else read(folder / part)

    return case


def device(read: Callable[[Path], object], make: Callable[[Path], object]) -> Case:
    def case(folder: Path) -> object:
        path = folder / "config.json"
        make(path)
        return read(path)

    return case


def read_calibration(path: Path) -> object:
    return Calibration.from_json(read_json(path), path.name)


CASES: dict[str, Case] = {
    **{f"header: {name}": file_of(data, read_all) for name, data in HEADERS.items()},
    "header: 20 GB of nothing": file_of(b"", read_all, size=20 * 10**9),
    "header: 20 GB behind a header": file_of(entry(), read_all, size=20 * 10**9),
    "header: a device": device(read_all, lambda path: path.symlink_to("/dev/zero")),
    "header: a pipe": device(read_all, os.mkfifo),
    "checkpoint: layers without end": file_of(header(layers(9000), b"\0" * 36_000), open_checkpoint),
    **{
        f"checkpoint: {name}": file_of(HEADERS[name], open_checkpoint)
        for name in ("overlapping tensors", "a name of 5 MB", "too many tensors", "objects without end")
    },
    "face embedding of 8000 tensors": file_of(
        HEADERS["overlapping tensors"], lambda path: load_face_embedding(path, 512)
    ),
    **{f"JSON: {name}": file_of(data, read_json, "config.json") for name, data in JSONS.items()},
    "JSON: 20 GB of nothing": file_of(b"{", read_json, "config.json", size=20 * 10**9),
    "JSON: a device": device(read_json, lambda path: path.symlink_to("/dev/zero")),
    "JSON: a pipe": device(read_json, os.mkfifo),
    "JSON: a link to itself": device(read_json, lambda path: path.symlink_to(path)),
    "JSON: a folder": device(read_json, lambda path: path.mkdir()),
    **{f"demo.json: {text}": file_of(text.encode(), read_settings, "demo.json") for text in SETTINGS},
    **{
        f"config: {part} {name} {str(value)[:20]}": checkpoint_with(part, name, value)
        for part, name, value in CONFIGS
    },
    **{f"calibration: {text}": file_of(text.encode(), read_calibration, "c.json") for text in CALIBRATIONS},
    **{
        f"picture: {name}": file_of(data, open_image, "a.png", size)
        for name, (data, size) in PICTURES.items()
    },
    "classifier of 8 GB": hole(
        wide("layers.fc1.weight", 2 * 10**6, 2000),
        8 * 10**9,
        lambda path: read_classifier(path.parent),
        "diffusion_pytorch_model.safetensors",
    ),
    "emotion2vec of 4 GB": hole(wide(NET, 2 * 10**9), 4 * 10**9, read_emotion2vec, "e.safetensors"),
    **TEXTS,
}


def main(folder: Path) -> None:
    usage = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (usage + ROOM, resource.RLIM_INFINITY))
    results = {}
    for index, (name, case) in enumerate(CASES.items()):
        place = folder / str(index)
        place.mkdir()
        started = time.process_time()
        try:
            case(place)
            ended, message = "value", ""
        except Exception as error:
            ours = type(error).__module__.startswith(OURS)
            ended, message = "ours" if ours else type(error).__name__, str(error)
        seconds = time.process_time() - started
        results[name] = {"ended": ended, "seconds": seconds, "message": message[:2000]}
        shutil.rmtree(place)
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""A checkpoint that cannot be loaded is refused before the run, what is damaged first.

A name that is not listed is answered with the one that was meant.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.helpers.comfy.pack import CHECKPOINT
from tests.helpers.comfy.prompts import linked, node
from tests.helpers.comfy.server import ComfyServer, Prompt, PromptFailedError, PromptRefusedError

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(900)]

WEIGHTS = "diffusion_pytorch_model.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 123\n"
PAGE = b"<html>Not found</html>" * 20
CUT_OFF = (5000).to_bytes(8, "little") + b'{"a":'
TEMPLATES_NAME = "MEMO"
DOWNLOAD = "models download"


def loading(checkpoint: object, vae_of: str | None = None) -> Prompt:
    """Load MEMO, with its own VAE or another checkpoint's, and somebody who wants its frames' VAE."""
    prompt = {
        "load": node("MEMO_Load", checkpoint=checkpoint, weight_dtype="auto"),
        "save": node("MEMO_Save", model=["load", 0], memo=["load", 1], name="never", dtype="bf16"),
    }
    if vae_of is not None:
        prompt["other"] = node("MEMO_Load", checkpoint=vae_of, weight_dtype="auto")
        prompt["load"]["inputs"]["vae"] = ["other", 2]
    return prompt


def refusal(server: ComfyServer, prompt: Prompt) -> str:
    """What is said on the node before the run, once for each input that the host asks about."""
    with pytest.raises(PromptRefusedError) as refused:
        server.queue(prompt)
    errors = json.loads(str(refused.value))["node_errors"]["load"]["errors"]
    said = {error["details"].removeprefix(f"{error['extra_info']['input_name']} - ") for error in errors}
    assert errors[0]["extra_info"]["input_name"] == "checkpoint"
    (sentence,) = said
    assert "\n" not in sentence and str(server.user) not in sentence and len(sentence) < 900
    return sentence


@pytest.fixture
def folder(any_server: ComfyServer) -> Iterator[Path]:
    """Where somebody's downloads go."""
    downloads = any_server.user / "models" / "memo" / "downloads"
    downloads.mkdir()
    yield downloads
    shutil.rmtree(downloads)


@pytest.mark.parametrize("vae_of", [None, CHECKPOINT], ids=["own VAE", "VAE connected"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "Download it again. Expected a safetensors file but got an empty file"),
        (PAGE, "but got a web page"),
        (POINTER, "but got a Git LFS pointer"),
        (CUT_OFF, "The download was cut off within the header"),
        (None, "but got: a link to nothing"),
    ],
    ids=["empty", "page", "pointer", "cut off", "link"],
)
def test_a_damaged_single_file_is_told_before_its_vae(
    any_server: ComfyServer, folder: Path, content: bytes | None, expected: str, vae_of: str | None
) -> None:
    file = folder / "memo.safetensors"
    file.symlink_to("/nowhere/x") if content is None else file.write_bytes(content)
    said = refusal(any_server, loading("downloads/memo.safetensors", vae_of))
    assert expected in said and "models/memo/downloads/memo.safetensors" in said and "VAE" not in said


@pytest.fixture
def copied(any_server: ComfyServer, folder: Path) -> Path:
    """A whole checkpoint to damage."""
    source = any_server.user / "models" / "memo" / CHECKPOINT
    return Path(shutil.copytree(source, folder / "mine", copy_function=shutil.copyfile))


@pytest.mark.parametrize("part", ["reference_net", "vae", "wav2vec2"])
def test_a_folder_with_an_empty_file_is_refused(any_server: ComfyServer, copied: Path, part: str) -> None:
    (weights,) = (copied / part).glob("*.safetensors")
    weights.write_bytes(b"")
    said = refusal(any_server, loading("downloads/mine"))
    assert "got an empty file" in said and f"models/memo/downloads/mine/{part}/" in said


def test_a_folder_of_pointers_is_refused_with_all_of_them(any_server: ComfyServer, copied: Path) -> None:
    for part in ("diffusion_net", "reference_net", "image_proj", "audio_proj"):
        (copied / part / WEIGHTS).write_bytes(POINTER)
    said = refusal(any_server, loading("downloads/mine"))
    assert "a Git LFS pointer" in said
    assert "Also wrong: reference_net, image_proj, audio_proj." in said


def test_another_model_in_a_parts_place_is_refused(any_server: ComfyServer, copied: Path) -> None:
    shutil.copyfile(copied / "vae" / WEIGHTS, copied / "reference_net" / WEIGHTS)
    said = refusal(any_server, loading("downloads/mine"))
    assert said.startswith("This looks like a VAE; put MEMO's reference_net in its place.")


def test_a_file_that_lacks_its_last_bytes_never_arrived_to_a_hundred_per_cent(
    any_server: ComfyServer, copied: Path
) -> None:
    weights = copied / "vae" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "cut off and 99% of it arrived" in refusal(any_server, loading("downloads/mine"))


@pytest.mark.parametrize("file", ["wav2vec2/config.json", "audio_proj/config.json", "demo.json"])
def test_json_that_ends_too_early_is_told_in_our_words(
    any_server: ComfyServer, copied: Path, file: str
) -> None:
    (copied / file).write_text('{"a')
    said = refusal(any_server, loading("downloads/mine"))
    assert "Expected a JSON object but got: an end too early, in line 1, column 2" in said and file in said


DISAGREEING = [
    ("downsample_padding", 0, "Take the config from MEMO's own folder"),
    ("block_out_channels", [10**9] * 4, "Copy config and weights from one place"),
    ("norm_num_groups", 7, "Download the config again."),
]


@pytest.mark.parametrize(("key", "value", "advice"), DISAGREEING, ids=[row[0] for row in DISAGREEING])
def test_a_config_of_another_network_is_refused(
    any_server: ComfyServer, copied: Path, key: str, value: object, advice: str
) -> None:
    file = copied / "diffusion_net" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    said = refusal(any_server, loading("downloads/mine"))
    assert said.startswith(advice) and f"Expected {key}" in said
    assert said.endswith("(diffusion_net config of models/memo/downloads/mine).")


def test_its_own_damaged_vae_does_not_count_where_another_is_connected(
    any_server: ComfyServer, copied: Path
) -> None:
    (copied / "vae" / WEIGHTS).write_bytes(b"")
    prompt = loading("downloads/mine", vae_of=CHECKPOINT)
    prompt["save"]["inputs"]["name"] = "mine"
    any_server.run(prompt)
    saved = any_server.user / "models" / "memo" / "mine.safetensors"
    said = refusal(any_server, loading("mine.safetensors"))
    assert said.startswith("Connect Load VAE with sd-vae-ft-mse to the vae input.")
    saved.unlink()


@pytest.fixture
def half(any_server: ComfyServer) -> Iterator[str]:
    """The name of a checkpoint of which some files have not come yet."""
    folder = any_server.user / "models" / "memo" / "half"
    shutil.copytree(any_server.user / "models" / "memo" / CHECKPOINT, folder)
    for part in ("reference_net", "vae"):
        shutil.rmtree(folder / part)
    (folder / "image_proj" / WEIGHTS).unlink()
    yield folder.name
    shutil.rmtree(folder)


def test_half_a_download_is_said_with_all_that_is_missing(any_server: ComfyServer, half: str) -> None:
    """It continues by the same command."""
    said = refusal(any_server, loading(half))
    assert "half is not complete. In the pack's folder" in said and DOWNLOAD in said
    assert "put these into models/memo/half yourself" in said
    for part in ("reference_net", "image_proj", "vae"):
        assert f"{part}/{WEIGHTS}" in said
    assert "diffusion_net/" not in said


@pytest.fixture
def begun(any_server: ComfyServer) -> Iterator[None]:
    """A download that was stopped at its first file."""
    folder = any_server.user / "models" / "memo" / TEMPLATES_NAME
    for part in ("reference_net", "vae"):
        (folder / part).mkdir(parents=True)
    yield
    shutil.rmtree(folder)


@pytest.mark.usefixtures("begun")
def test_a_folder_that_is_there_is_not_called_absent(any_server: ComfyServer) -> None:
    said = refusal(any_server, loading(TEMPLATES_NAME))
    assert said.startswith("MEMO is not complete. In the pack's folder") and DOWNLOAD in said
    assert f"diffusion_net/{WEIGHTS}" in said and f"vae/{WEIGHTS}" in said


@pytest.mark.parametrize("name", [TEMPLATES_NAME, "memo", "memo-fp16.safetensors"])
def test_memos_own_name_is_answered_with_the_download(any_server: ComfyServer, name: str) -> None:
    said = refusal(any_server, loading(name))
    assert f"{name} is not in models/memo. In the pack's folder" in said and "about 11 GB" in said


DEMO = "cartoons only: demo, 96x96"


def saved_of_two(memo: str, model: str, name: str) -> Prompt:
    """The MODEL of one checkpoint saved with everything else of another."""
    prompt = loading(memo)
    prompt["other"] = node("MEMO_Load", checkpoint=model, weight_dtype="fp32")
    prompt["save"]["inputs"] |= {"model": ["other", 0], "name": name, "dtype": "fp32"}
    return prompt


def test_parts_of_two_checkpoints_of_other_sizes_are_not_saved_as_one(any_server: ComfyServer) -> None:
    with pytest.raises(PromptFailedError, match="Connect model and memo of the same Load MEMO"):
        any_server.run(saved_of_two(DEMO, CHECKPOINT, "of two"))
    assert not (any_server.user / "models" / "memo" / "of two.safetensors").exists()


def test_the_connected_model_is_what_is_saved(any_server: ComfyServer, copied: Path) -> None:
    """Not the one of the checkpoint that everything else comes from."""
    key = "conv_out.bias"
    weights = load_file(copied / "diffusion_net" / WEIGHTS)
    save_file({**weights, key: weights[key] + 1}, copied / "diffusion_net" / WEIGHTS)
    (path,) = any_server.run(saved_of_two(CHECKPOINT, "downloads/mine", "of mine"))["save"]["text"]
    saved = load_file(path)[f"diffusion_net.{key}"]
    Path(path).unlink()
    assert np.array_equal(saved, weights[key] + 1)


MISTYPED: list[tuple[object, str]] = [
    (f" {CHECKPOINT}", CHECKPOINT),
    ("Micro", CHECKPOINT),
    ("mirco", CHECKPOINT),
    (f"{CHECKPOINT}.safetensors", CHECKPOINT),
    (f"../{CHECKPOINT}", CHECKPOINT),
    ("demo", DEMO),
    ("cartoons only: demo", DEMO),
    ("", ""),
    ("somebody's.safetensors", ""),
    ("/etc", ""),
    ("downloads", "downloads/mine"),
    ({"a": 1}, ""),
]


@pytest.mark.usefixtures("copied")
@pytest.mark.parametrize(("name", "near"), MISTYPED, ids=[str(name) for name, _ in MISTYPED])
def test_a_name_that_is_not_listed_is_answered_with_the_nearest(
    any_server: ComfyServer, name: object, near: str
) -> None:
    said = refusal(any_server, loading(name))
    nearest = f"; the nearest there is '{near}'" if near else ""
    assert said.startswith(f"Choose checkpoint from its list{nearest}. Expected a listed value but got ")
    assert "GB" not in said


def test_so_is_a_linked_one_when_it_comes(server: ComfyServer) -> None:
    prompt = linked(loading(CHECKPOINT), "load", "checkpoint", "mirco")
    with pytest.raises(PromptFailedError, match=f"from its list; the nearest there is '{CHECKPOINT}'"):
        server.run(prompt)


def test_a_missing_name_is_the_hosts_to_tell(server: ComfyServer) -> None:
    prompt = loading(CHECKPOINT, vae_of=CHECKPOINT)
    del prompt["load"]["inputs"]["checkpoint"]
    with pytest.raises(PromptRefusedError) as refused:
        server.queue(prompt)
    (error,) = json.loads(str(refused.value))["node_errors"]["load"]["errors"]
    assert error["type"] == "required_input_missing"


def test_no_download_is_asked_for_where_there_is_nothing_to_fetch(any_server: ComfyServer) -> None:
    memo = any_server.user / "models" / "memo"
    shutil.copytree(memo / CHECKPOINT, memo / TEMPLATES_NAME)
    try:
        said = refusal(any_server, loading("memo-of-somebody-else-fp16.safetensors"))
    finally:
        shutil.rmtree(memo / TEMPLATES_NAME)
    assert said.startswith("Choose checkpoint from its list. Expected a listed value but got 'memo-of-")

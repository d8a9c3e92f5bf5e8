"""Every wrong or damaged checkpoint gets an error that names the file, the keys and the likely mix-up."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from memo_avatar.checkpoint.companions import check_files
from memo_avatar.checkpoint.convert import convert
from memo_avatar.checkpoint.load import CheckpointError, load_memo, open_checkpoint
from memo_avatar.files.header import header_bytes, read_header
from tests.helpers.weights import copied_weights

MICRO = Path(__file__).resolve().parents[2] / "goldens" / "micro" / "checkpoint"
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the micro checkpoint to damage."""
    return Path(shutil.copytree(MICRO, tmp_path / "memo", ignore=shutil.ignore_patterns("vae")))


def message(path: Path, load: Callable[[Path], object] = open_checkpoint) -> str:
    """The error that opening gives; it always names a file."""
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def change(file: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = copied_weights(file)
    edit(tensors)
    save_file(tensors, file)


def change_config(folder: Path, part: str, **entries: object) -> None:
    file = folder / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


# Wrong keys, shapes and values


def test_missing_and_unexpected_keys_are_listed_up_to_ten(folder: Path) -> None:
    def rename(tensors: dict[str, Tensor]) -> None:
        for key in [key for key in tensors if "audio_attn1" in key][:12]:
            tensors[key.replace("audio_attn1", "sound_attn1")] = tensors.pop(key)

    change(folder / "diffusion_net" / WEIGHTS, rename)
    text = message(folder)
    assert f"diffusion_net/{WEIGHTS}" in text
    assert "expected the 1324 tensors of diffusion_net but got 1324, 12 missing: " in text
    assert "12 unexpected: " in text
    assert text.count("sound_attn1") == 10
    assert "It is a diffusion_net, but an incomplete or changed one" in text


def test_a_wrong_shape_shows_both(folder: Path) -> None:
    key = "down_blocks.1.resnets.0.conv2.weight"
    change(
        folder / "reference_net" / WEIGHTS, lambda tensors: tensors.update({key: torch.zeros(32, 16, 3, 3)})
    )
    assert f"1 of another shape: {key} [32, 16, 3, 3] instead of [32, 32, 3, 3]" in message(folder)


def test_a_missing_key_that_tells_a_size(folder: Path) -> None:
    change(folder / "audio_proj" / WEIGHTS, lambda tensors: tensors.pop("norm.weight"))
    assert "norm.weight" in message(folder)


def test_a_size_that_describes_no_network(folder: Path) -> None:
    change(folder / "image_proj" / WEIGHTS, lambda tensors: tensors.update({"norm.weight": torch.zeros(0)}))
    assert "got ones of no network" in message(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [None, torch.float32], ids=["mapped", "converted"])
def test_weights_that_are_not_finite(folder: Path, value: float, dtype: torch.dtype | None) -> None:
    change(
        folder / "audio_proj" / WEIGHTS, lambda tensors: tensors["proj2.weight"].view(-1)[-1:].fill_(value)
    )
    text = message(folder, lambda path: load_memo(path, dtype=dtype))
    assert "expected finite weights but got NaN or infinity" in text
    assert "proj2.weight" in text


def test_weights_too_large_for_float16(folder: Path) -> None:
    change(
        folder / "image_proj" / WEIGHTS, lambda tensors: tensors.update({"proj.bias": torch.full((96,), 1e6)})
    )
    text = message(folder, lambda path: load_memo(path, dtype=torch.float16))
    assert "expected weights up to 65504 but got 1e+06" in text
    assert "Use bfloat16 or float32." in text


def test_a_dtype_that_is_not_read(folder: Path) -> None:
    double = torch.zeros(96, dtype=torch.float64)
    change(folder / "image_proj" / WEIGHTS, lambda tensors: tensors.update({"proj.bias": double}))
    assert "1 of a dtype other than F32, BF16, F16: proj.bias F64" in message(folder)


# Configs


@pytest.mark.parametrize(
    ("part", "entries", "expected"),
    [
        (
            "diffusion_net",
            {"cross_attention_dim": 768},
            "expected cross_attention_dim to be 24, as in the weights, but got 768",
        ),
        (
            "diffusion_net",
            {"attention_head_dim": 5},
            "expected attention_head_dim to divide the width 32 of a block but got 5",
        ),
        (
            "reference_net",
            {"norm_num_groups": 7},
            "expected norm_num_groups to divide the width 32 of a block",
        ),
        ("reference_net", {"norm_num_groups": 0}, "a whole number from 1 to 1024 but got 0"),
        ("diffusion_net", {"act_fn": "x"}, "expected act_fn to be 'silu' but got 'x'"),
        ("reference_net", {"norm_eps": "x"}, "expected norm_eps to lie between 0 and 1 but got 'x'"),
        ("diffusion_net", {"motion_module_kwargs": [1]}, "motion_module_kwargs to be an object but got [1]"),
        ("image_proj", {"cross_attention_dim": [24]}, "to be 24, as in the weights, but got (24,)"),
    ],
)
def test_a_config_that_disagrees_with_the_weights(
    folder: Path, part: str, entries: dict[str, object], expected: str
) -> None:
    """By headers and configs alone, too; in the order that the page turns round: reason, where, advice."""
    change_config(folder, part, **entries)
    for look in (open_checkpoint, check_files):
        text = message(folder, look)
        assert text.startswith("expected ") and expected in text
        assert f" ({part} config of {folder}). " in text and text.endswith(".")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "expected a JSON object but got: an end too early"),
        ("[]", "expected a JSON object but got: a list"),
    ],
)
def test_a_config_that_is_no_config(folder: Path, text: str, expected: str) -> None:
    (folder / "image_proj" / "config.json").write_text(text)
    assert expected in message(folder)


def test_a_missing_config(folder: Path) -> None:
    (folder / "image_proj" / "config.json").unlink()
    assert "expected a readable config.json" in message(folder)


# The wrong file in a part's place


def sd15_unet() -> dict[str, Tensor]:
    keys = (
        "conv_in.weight",
        "conv_out.weight",
        "mid_block.resnets.0.conv1.weight",
        "time_embedding.linear_1.weight",
    )
    return {key: torch.zeros(4) for key in keys}


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        (sd15_unet(), "This looks like a Stable Diffusion UNet; put MEMO's diffusion_net in its place."),
        ({"decoder.conv_in.weight": torch.zeros(1)}, "This looks like a VAE"),
        ({"model.diffusion_model.out.0.bias": torch.zeros(1)}, "a whole Stable Diffusion checkpoint"),
        ({"down_blocks.0.motion_modules.0.x": torch.zeros(1)}, "an AnimateDiff motion module"),
        ({"lora_unet_down.lora_up.weight": torch.zeros(1)}, "a LoRA"),
        ({"text_model.encoder.layers.0.x": torch.zeros(1)}, "a CLIP text encoder"),
        ({"wav2vec2.feature_extractor.conv_layers.0.x": torch.zeros(1)}, "a wav2vec2 audio encoder"),
        ({"something": torch.zeros(1)}, "This is no net of MEMO"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[-24:],
)
def test_another_model_in_place_of_the_diffusion_net(
    folder: Path, tensors: dict[str, Tensor], expected: str
) -> None:
    save_file(tensors, folder / "diffusion_net" / WEIGHTS)
    text = message(folder)
    assert expected in text
    assert (
        f"expected MEMO's diffusion_net but got {len(tensors)} tensors: {next(iter(sorted(tensors)))}" in text
    )


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("reference_net", "diffusion_net"), ("diffusion_net", "reference_net"), ("audio_proj", "image_proj")],
)
def test_one_part_in_place_of_another(folder: Path, given: str, wanted: str) -> None:
    shutil.copy(MICRO / given / WEIGHTS, folder / wanted / WEIGHTS)
    assert f"This looks like MEMO's {given}; put MEMO's {wanted} in its place." in message(folder)


def test_a_prefix_on_every_key(folder: Path) -> None:
    file = folder / "image_proj" / WEIGHTS
    save_file({f"module.{key}": tensor for key, tensor in copied_weights(file).items()}, file)
    assert "Every key begins with 'module.'" in message(folder)


# Damaged and foreign files


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "a Git LFS pointer"),
        (b"PK\x03\x04archive", "a PyTorch pickle or another zip archive"),
        (b"\x00" * 100, "something else"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{not json at all", "expected a safetensors header"),
        (b'\x10\x00\x00\x00\x00\x00\x00\x00{"a":{"shape":1}', "expected a safetensors header"),
    ],
    ids=["empty", "html", "lfs", "pickle", "zeros", "bad json", "bad entry"],
)
def test_a_file_that_is_no_safetensors(folder: Path, content: bytes, expected: str) -> None:
    file = folder / "audio_proj" / WEIGHTS
    file.write_bytes(content)
    text = message(folder)
    assert expected in text
    assert str(file) in text


def test_a_truncated_file_says_how_much_arrived(folder: Path) -> None:
    file = folder / "diffusion_net" / WEIGHTS
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for size, expected in [
        (len(whole) // 2, "The download was cut off and 50% of it arrived"),
        (len(whole) - 1, "The download was cut off and 99% of it arrived"),
        (header, "The download was cut off and only the header arrived"),
        (header // 2, "The download was cut off within the header"),
    ]:
        file.write_bytes(whole[:size])
        assert expected in message(folder)


def test_a_share_of_the_file_is_never_rounded_to_all_or_nothing(tmp_path: Path) -> None:
    file = tmp_path / "memo.safetensors"
    header = header_bytes({"x": (100_000,)}, torch.float32, {})
    for arrived, expected in [(1, "less than 1%"), (399_999, "99%")]:
        file.write_bytes(header + bytes(arrived))
        assert f"cut off and {expected} of it arrived" in message(file)


def test_a_header_whose_length_begins_like_a_pickle_is_read(tmp_path: Path) -> None:
    """Of 640 bytes, so that its file begins with 80 02."""
    file = tmp_path / "memo.safetensors"
    short = len(header_bytes({"x": (1,)}, torch.float32, {"note": ""})) - 8
    header = header_bytes({"x": (1,)}, torch.float32, {"note": "n" * (640 - short)})
    assert header.startswith(b"\x80\x02\0\0\0\0\0\0{")
    file.write_bytes(header + bytes(4))
    assert list(read_header(file).tensors) == ["x"]


def test_a_file_that_is_too_long(folder: Path) -> None:
    with (folder / "audio_proj" / WEIGHTS).open("ab") as stream:
        stream.write(b"more")
    assert "The file is damaged" in message(folder)


def test_a_header_whose_sizes_disagree(folder: Path) -> None:
    file = folder / "audio_proj" / WEIGHTS
    file.write_bytes(file.read_bytes().replace(b'"shape":[24,24]', b'"shape":[24,23]'))
    assert "The header is damaged" in message(folder)


# Wrong paths


def test_nothing_there(tmp_path: Path) -> None:
    assert "got nothing there" in message(tmp_path / "missing.safetensors")


def test_a_missing_part(folder: Path) -> None:
    shutil.rmtree(folder / "audio_proj")
    text = message(folder)
    assert "got none named audio_proj" in text
    assert "Download audio_proj of the same checkpoint into it." in text


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], "expected diffusion_pytorch_model.safetensors but got none"),
        (["diffusion_pytorch_model.bin"], "Pickled weights can run code when opened and are refused"),
        (["model.safetensors.part"], "The download has not finished"),
        (["model.safetensors"], "There is model.safetensors instead"),
    ],
)
def test_a_part_without_its_weights(folder: Path, files: list[str], expected: str) -> None:
    (folder / "image_proj" / WEIGHTS).unlink()
    for name in files:
        (folder / "image_proj" / name).touch()
    assert expected in message(folder)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["model_index.json", "unet/config.json"], "This looks like a diffusers pipeline folder"),
        (["memo.safetensors"], "To load the single file memo.safetensors, give its own path."),
        (["memo/diffusion_net/config.json"], "The parts are in memo/; give that folder."),
        (["readme.txt"], "Give the folder of a MEMO checkpoint."),
    ],
)
def test_another_folder(tmp_path: Path, files: list[str], expected: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    assert expected in message(tmp_path)


def test_the_folder_of_one_part(folder: Path) -> None:
    assert "This is the diffusion_net alone; give the folder above it." in message(folder / "diffusion_net")


def test_the_file_of_one_part(folder: Path) -> None:
    text = message(folder / "reference_net" / WEIGHTS)
    assert "This is MEMO's reference_net alone; give the folder that holds diffusion_net/" in text
    assert "among 414: conv_in.bias" in text


@pytest.mark.parametrize("suffix", [".bin", ".ckpt", ".pth", ".pt"])
def test_a_pickle_is_refused_unopened(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"memo{suffix}"
    file.write_bytes(b"")
    assert "got a pickle, which can run code" in message(file)


# The single file


@pytest.fixture
def single(tmp_path: Path) -> Path:
    file = tmp_path / "memo.safetensors"
    convert(MICRO, file, torch.float16)
    return file


def test_a_single_file_without_its_metadata(single: Path) -> None:
    save_file(copied_weights(single), single)
    text = message(single)
    assert "expected the config of diffusion_net in the metadata but got none" in text
    assert "Another program saved this file and dropped it" in text


def test_a_single_file_with_a_part_missing_or_too_many(single: Path) -> None:
    tensors = copied_weights(single)
    save_file({key: tensor for key, tensor in tensors.items() if "audio_proj" not in key}, single)
    assert "got none of audio_proj among 1742" in message(single)
    save_file(tensors | {"vae.decoder.conv_in.weight": torch.zeros(1)}, single)
    assert "got 1 other: vae.decoder.conv_in.weight" in message(single)


def test_a_single_file_of_another_model(tmp_path: Path) -> None:
    file = tmp_path / "sd15.safetensors"
    save_file(sd15_unet(), file)
    assert "This looks like a Stable Diffusion UNet; give MEMO's folder" in message(file)

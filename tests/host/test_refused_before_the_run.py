"""What can be known before a run is refused before it: on the wrong input, in a sentence with the remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.comfy.messages import Messages
from tests.helpers.comfy.pack import ROOT
from tests.helpers.comfy.prompts import (
    SAMPLER,
    linked,
    node,
    portrait_prompt,
    with_another_speaker,
    with_cache,
    with_compared,
    with_images,
    with_pasted,
)
from tests.helpers.comfy.server import ComfyServer, Prompt, PromptFailedError, PromptRefusedError
from tests.helpers.inside.world import value

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(900)]

ONE_STEP = (
    "Set steps of the sampler to as many as your videos will have, such as 20. Expected 2 steps or more "
    "while calibrating but got 1 (steps)."
)
REFUSED = [
    ("1", "checkpoint", "MEMO", "models download"),
    ("3", "face_box", "1,2,3", "Give left,top,right,bottom in pixels"),
    ("5", "emotions", "0 happy, 1 hapy", "Use a name or number of"),
    ("5", "emotions", "0,5 happy", "Write 0.5 with a point"),
    (SAMPLER, "sampler_name", "ddpm", "Choose euler or deis: ddpm does not fit"),
    (
        SAMPLER,
        "cfg",
        0.5,
        "Use 0 for what the checkpoint recommends, or 1 for none. Expected a guidance of 0",
    ),
    (SAMPLER, "cfg", 20.5, "Set cfg to a number from 0 to 20. Expected 0 to 20 but got 20.5 (cfg)."),
    ("3", "width", 33, "Use 40x32. Expected a width and height divisible by 8 but got 33x32 (size)."),
    ("3", "height", 5000, "Set height to a number from 0 to 4096. Expected 0 to 4096 but got 5000 (height)."),
    ("3", "height", -8, "Set height to a number from 0 to 4096. Expected 0 to 4096 but got -8 (height)."),
    (
        "cache",
        "start_percent",
        0.9,
        "Give shares of the run, such as 0.1 and 0.9. Expected 0 <= start_percent",
    ),
    ("cache", "end_percent", 1.5, "Set end_percent to a number from 0 to 1. Expected 0 to 1 but got 1.5"),
]


def changed(node_id: str, **inputs: Any) -> Prompt:
    prompt = with_images(portrait_prompt(steps=1))
    prompt[node_id]["inputs"] |= inputs
    return prompt


@pytest.mark.parametrize(("node_id", "name", "given", "advice"), REFUSED, ids=[row[1] for row in REFUSED])
def test_it_is_said_on_the_input(
    any_server: ComfyServer, node_id: str, name: str, given: Any, advice: str
) -> None:
    """The server repeats a node's sentence for every input that the node was asked about."""
    prompt = with_cache(with_images(portrait_prompt(steps=1)), end_percent=0.8)
    prompt[node_id]["inputs"] |= {name: given}
    with pytest.raises(PromptRefusedError) as refused:
        any_server.queue(prompt)
    ((refusing, found),) = json.loads(str(refused.value))["node_errors"].items()
    said = {error["extra_info"]["input_name"]: error["details"] for error in found["errors"]}
    (sentence,) = {details.removeprefix(f"{each} - ") for each, details in said.items()}
    assert refusing == node_id and name in said
    assert advice in sentence and "\n" not in sentence


def test_what_a_link_brings_beside_a_typed_value_is_refused_in_the_same_sentence(server: ComfyServer) -> None:
    prompt = linked(
        with_cache(with_images(portrait_prompt(steps=1)), end_percent=0.8), "cache", "start_percent", 0.9
    )
    with pytest.raises(
        PromptFailedError, match=r"Give shares of the run, such as 0\.1 and 0\.9\. Expected 0 <="
    ):
        server.run(prompt)


def test_the_list_of_samplers_begins_with_the_recommended_and_has_none_that_does_not_fit(
    any_server: ComfyServer,
) -> None:
    spec = any_server.get("/object_info/MEMO_Sampler")["MEMO_Sampler"]["input"]["required"]["sampler_name"]
    options = spec[1]["options"]
    assert options[:2] == ["euler", "deis"] and len(options) == len(set(options)) > 30
    assert not {"ddpm", "res_multistep_ancestral"} & set(options)


def test_cfg_0_is_what_the_checkpoint_recommends(server: ComfyServer) -> None:
    """The tests' checkpoint recommends 2.0."""

    def frames(cfg: float) -> list[bytes]:
        outputs = server.run(changed(SAMPLER, cfg=cfg))
        return [Image.open(server.file(saved)).tobytes() for saved in outputs["images"]["images"]]

    assert frames(0.0) == frames(2.0) != frames(1.0)
    with pytest.raises(PromptFailedError, match="Use 0 for what the checkpoint recommends, or 1 for none"):
        server.run(linked(changed(SAMPLER), SAMPLER, "cfg", 0.5))


@pytest.mark.parametrize("target", ["1", SAMPLER], ids=["Load MEMO", "MEMO Sampler"])
def test_a_vae_of_another_kind_is_named_before_a_step(any_server: ComfyServer, target: str) -> None:
    prompt = changed(target, vae=["vae", 0])
    prompt["vae"] = node("VAELoader", vae_name="pixel_space")
    with pytest.raises(PromptFailedError) as failed:
        any_server.run(prompt)
    assert failed.value.details["exception_message"].startswith("Connect Load VAE with sd-vae-ft-mse")
    assert failed.value.details["node_id"] == target


MIXED = [
    ("model", 0, "Connect model and memo of the same Load MEMO."),
    ("memo", 1, "Connect model and memo of the same Load MEMO."),
    ("voice", 1, "Connect the same Load MEMO to MEMO Voice as to the sampler."),
]


@pytest.mark.parametrize(("what", "output", "advice"), MIXED, ids=[row[0] for row in MIXED])
def test_parts_of_two_checkpoints_are_told_before_a_step(
    any_server: ComfyServer, what: str, output: int, advice: str
) -> None:
    """Of other sizes: the demo beside the tests' checkpoint."""
    target, name = ("5", "memo") if what == "voice" else (SAMPLER, what)
    prompt = changed(target, **{name: ["other", output]})
    prompt["other"] = node("MEMO_Load", checkpoint="cartoons only: demo, 96x96", weight_dtype="auto")
    with pytest.raises(PromptFailedError) as failed:
        any_server.run(prompt)
    said = failed.value.details["exception_message"]
    assert said.startswith(advice) and what in said.rpartition("(")[2]
    assert failed.value.details["node_id"] == SAMPLER
    assert failed.value.details["exception_type"] == "ValueError"


def test_a_portrait_and_a_vae_of_another_loader_make_a_video(any_server: ComfyServer) -> None:
    """They are pictures and a VAE of Stable Diffusion's kind, whoever loaded them."""
    prompt = changed("3", memo=["other", 1])
    prompt[SAMPLER]["inputs"]["vae"] = ["other", 2]
    prompt["other"] = node("MEMO_Load", checkpoint="cartoons only: demo, 96x96", weight_dtype="auto")
    assert len(any_server.run(prompt)["images"]["images"]) == 18


PASTED = {
    "not cut out": ({}, {"fit": "crop"}, "Choose fit face in MEMO Portrait."),
    "too soft": ({"feather": 3.0}, {}, "Set feather to a number from 0 to 0.5."),
    "less than hard": ({"feather": -1.0}, {}, "Set feather to a number from 0 to 0.5."),
    "a word": ({"feather": "abc"}, {}, "Set feather to a number from 0 to 0.5."),
    "neither yes nor no": ({"match_colour": "maybe"}, {}, "Set match_colour on the node"),
    "another picture": ({"original": "wide.png"}, {}, "Connect to original the picture that MEMO Portrait"),
}
"""Linked inputs of MEMO Paste Back, changes of the portrait, and what is said."""


@pytest.mark.parametrize("case", PASTED)
def test_paste_back_refuses_before_a_step_whatever_no_sampler_makes(
    any_server: ComfyServer, case: str
) -> None:
    """The nodes behind it have not run: no frame is made in vain."""
    given, portrait, advice = PASTED[case]
    Image.new("RGB", (100, 70)).save(any_server.user / "input" / "wide.png")
    prompt = with_pasted(portrait_prompt(steps=1, seconds=0.2, seed=list(PASTED).index(case)))
    prompt["3"]["inputs"] |= portrait
    for name, wrong in given.items():
        prompt = linked(prompt, "pasted", name, wrong)
    if "original" in given:
        prompt["switch"] = node("LoadImage", image=given["original"])
    details = refused_run(any_server, prompt)
    assert details["node_id"] == "pasted" and SAMPLER not in details["executed"]
    assert details["exception_message"].startswith(advice)


def test_two_speakers_of_different_rates_are_refused_before_a_step(any_server: ComfyServer) -> None:
    prompt = with_another_speaker(with_pasted(portrait_prompt(steps=1, seconds=0.2, seed=91)), fps="25")
    details = refused_run(any_server, prompt)
    assert details["node_id"] == "both" and not {SAMPLER, "6b"} & set(details["executed"])
    assert details["exception_message"].startswith("Give both samplers the same fps and both speakers sounds")
    assert "25 and 30 (fps)" in details["exception_message"]


def test_what_the_second_speaker_lacks_is_said_before_the_first_is_made(any_server: ComfyServer) -> None:
    prompt = with_another_speaker(with_pasted(portrait_prompt(steps=1, seconds=0.2, seed=92)))
    details = refused_run(any_server, linked(prompt, "both", "feather", 3.0))
    assert details["node_id"] == "both" and not {SAMPLER, "6b"} & set(details["executed"])


def test_two_speakers_of_different_lengths_are_told_what_to_make_equal(any_server: ComfyServer) -> None:
    """How long a voice is comes from its sound, which no node but MEMO Voice has read."""
    prompt = with_another_speaker(
        with_pasted(portrait_prompt(steps=1, seconds=0.2, seed=93)), voice=["longer", 0]
    )
    prompt["longer"] = {**prompt["5"], "inputs": {**prompt["5"]["inputs"], "duration": 0.4}}
    details = refused_run(any_server, prompt)
    assert details["node_id"] == "both"
    assert details["exception_message"].startswith("Give both samplers the same fps and both speakers sounds")
    assert "12 images, but got 6 (original)" in details["exception_message"]


def test_an_original_that_gives_nothing_is_refused_before_a_step(any_server: ComfyServer) -> None:
    prompt = with_pasted(portrait_prompt(steps=1, seconds=0.2, seed=94), original=["switch", 0])
    prompt["switch"] = node("ComfySwitchNode", switch=True, on_true=None, on_false=None)
    details = refused_run(any_server, prompt)
    assert details["node_id"] == "pasted" and SAMPLER not in details["executed"]
    assert details["exception_message"].startswith("Connect a picture to original, or disconnect it.")


def test_two_speakers_in_one_picture_and_upscaled_frames_are_pasted(any_server: ComfyServer) -> None:
    prompt = with_another_speaker(with_pasted(portrait_prompt(steps=1, seconds=0.2, seed=95)))
    prompt["larger"] = node("ImageScaleBy", image=["6b", 0], upscale_method="lanczos", scale_by=4.0)
    prompt["both"]["inputs"]["images"] = ["larger", 0]
    frames = any_server.run(prompt)["images"]["images"]
    assert [Image.open(any_server.file(frame)).size for frame in frames] == 6 * [(64, 64)]


def test_frames_of_another_shape_are_refused(any_server: ComfyServer) -> None:
    Image.new("RGB", (100, 70)).save(any_server.user / "input" / "wide.png")
    prompt = with_pasted(portrait_prompt(), images=["wide", 0])
    prompt["wide"] = node("LoadImage", image="wide.png")
    details = refused_run(any_server, prompt)
    assert details["exception_message"].startswith("Connect the images of the MEMO Sampler that has this")
    assert "but got 100x70 (images)" in details["exception_message"]


UNEQUAL = {
    "fps": ({"fps": "25"}, {}, "30 and 25"),
    "width": ({"portrait": ["3b", 0]}, {"width": 64}, "32 and 64"),
    "height": ({"portrait": ["3b", 0]}, {"height": 40}, "32 and 40"),
}
"""Changes of one sampler, and of its portrait's node."""


@pytest.mark.parametrize("name", UNEQUAL)
def test_runs_that_cannot_be_compared_are_refused_before_a_step(any_server: ComfyServer, name: str) -> None:
    changes, portrait, both = UNEQUAL[name]
    prompt = with_compared(portrait_prompt(steps=1, seconds=0.2, seed=98), **changes)
    prompt["3b"] = {**prompt["3"], "inputs": {**prompt["3"]["inputs"], **portrait}}
    details = refused_run(any_server, prompt)
    assert details["node_id"] == "compared" and not {SAMPLER, "full"} & set(details["executed"])
    assert details["exception_message"].strip() == (
        f"Set {name} alike for both runs. Expected two videos of one {name} but got {both} ({name})."
    )


def test_a_size_that_the_graph_does_not_tell_is_left_to_the_pictures(server: ComfyServer) -> None:
    """A width of 0 is the checkpoint's own; frames that were scaled may have any."""
    prompt = with_compared(portrait_prompt(steps=1, seconds=0.2, seed=99), portrait=["3b", 0])
    prompt["3b"] = {**prompt["3"], "inputs": {**prompt["3"]["inputs"], "width": 0, "height": 0}}
    details = refused_run(server, prompt)
    assert details["node_id"] == "compared" and {SAMPLER, "full"} <= set(details["executed"])
    prompt["scaled"] = node(
        "ImageScale", image=[SAMPLER, 0], upscale_method="bilinear", width=32, height=32, crop="disabled"
    )
    prompt["compared"]["inputs"]["cached"] = ["scaled", 0]
    assert server.run(prompt)["verdict"]["text"]


@pytest.mark.parametrize("mode", ["no TeaCache", "threshold", "target speed-up"])
def test_calibrate_refuses_a_run_that_teaches_nothing(any_server: ComfyServer, mode: str) -> None:
    """Before its first step."""
    prompt = portrait_prompt(steps=2, seconds=0.2, seed=96)
    if mode != "no TeaCache":
        prompt = with_cache(prompt, mode=mode)
        prompt["report"] = node("PreviewImage", images=["3", 1])
    prompt["calibrate"] = node("MEMO_TeaCacheCalibrate", report=[SAMPLER, 3], name="never written")
    details = refused_run(any_server, prompt)
    assert details["node_id"] == "calibrate" and SAMPLER not in details["executed"]
    assert details["exception_message"].startswith("Set mode to calibrate in TeaCache for MEMO.")


def test_calibrate_knows_a_run_by_the_nodes_that_pass_its_model_on_and_by_no_others(
    inside: dict[str, Any],
) -> None:
    found = value(inside, "runs_that_teach")
    taught = {name for name, said in found.items() if said == "none"}
    assert taught == {
        *("calibrate", "calibrate, linked steps"),
        *("a model by its name", "one of two models", "a switch"),
    }
    for name in ("no cache", "behind a LoRA", "behind a pack's node"):
        assert found[name].startswith("Set mode to calibrate in TeaCache for MEMO.")
    for name in ("calibrate, one step", "a switch, one step"):
        assert found[name] == ONE_STEP


def test_one_step_teaches_nothing_and_nobody_says_set_mode_to_calibrate(inside: dict[str, Any]) -> None:
    found = value(inside, "one_step_calibrated")
    assert found["calibrate"] == ONE_STEP
    assert "Nothing was learned: expected 2 steps or more" in found["report"]


def test_calibrate_writes_what_a_calibrating_run_taught(any_server: ComfyServer) -> None:
    """Its mode may come through a link, which the graph does not tell."""
    prompt = with_cache(portrait_prompt(steps=4, seed=97), mode="calibrate")
    prompt["calibrate"] = node("MEMO_TeaCacheCalibrate", report=[SAMPLER, 3], name="taught")
    for each in (prompt, linked(prompt, "cache", "mode", "calibrate")):
        (path,) = any_server.run(each)["calibrate"]["text"]
        assert json.loads(Path(path).read_text(encoding="utf-8"))


def refused_run(server: ComfyServer, prompt: Prompt) -> dict[str, Any]:
    """How a run ended that the host could not refuse."""
    with pytest.raises(PromptFailedError) as failed:
        server.run(prompt)
    return failed.value.details


@pytest.mark.parametrize("choice", [{"emotion": "auto"}, {"separate_vocals": True}], ids=str)
def test_a_missing_helper_is_named_without_the_machines_folders(
    any_server: ComfyServer, choice: dict[str, Any]
) -> None:
    with pytest.raises(PromptFailedError) as failed:
        any_server.run(changed("5", **choice))
    said = failed.value.details["exception_message"]
    assert said.startswith("Run `python teacache_memo.py models download")
    assert str(any_server.user) not in said and str(ROOT) not in said and " /" not in said


def test_a_linked_sampler_is_checked_when_it_comes(server: ComfyServer) -> None:
    prompt = changed(SAMPLER, sampler_name=["switch", 0])
    prompt["text"] = node("PrimitiveString", value="ddpm")
    prompt["switch"] = node("ComfySwitchNode", switch=True, on_true=["text", 0], on_false=["text", 0])
    with pytest.raises(PromptFailedError, match="Choose sampler_name from its list"):
        server.run(prompt)


@pytest.mark.parametrize("former", ["demo: cartoons only, 96x96", "demo (comes with the pack)"])
def test_the_demo_says_what_it_is_and_is_found_by_its_former_names(
    any_server: ComfyServer, former: str
) -> None:
    """What counts comes first: a node in Nodes 2.0 shows some fifteen letters of the list's entry."""
    spec = any_server.get("/object_info/MEMO_Load")["MEMO_Load"]["input"]["required"]["checkpoint"]
    assert spec[1]["options"][0] == "cartoons only: demo, 96x96"
    prompt = changed("1", checkpoint=former)
    prompt["3"]["inputs"] |= {"width": 0, "height": 0}
    (frame, *_) = any_server.run(prompt)["images"]["images"]
    assert Image.open(any_server.file(frame)).size == (96, 96)


def test_a_photo_through_the_demo_is_told_on_the_portrait(any_server: ComfyServer) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(any_server.user / "input" / "photo.png")
    prompt = portrait_prompt()
    prompt["1"]["inputs"]["checkpoint"] = "cartoons only: demo, 96x96"
    prompt["2"]["inputs"]["image"] = "photo.png"
    prompt["3"]["inputs"] |= {"width": 0, "height": 0}
    seen = {name: prompt[name] for name in ("1", "2", "3")}
    seen["seen"] = node("PreviewImage", images=["3", 1])
    with Messages(any_server.port, "tests") as messages:
        any_server.run(seen)
    (said,) = [text for where, text in messages.node_texts if where == "3"]
    assert said.startswith("Use a drawn face") and "Photos need MEMO's own weights" in said


def test_a_face_box_that_reaches_beyond_the_picture_is_told_on_the_portrait(any_server: ComfyServer) -> None:
    prompt = portrait_prompt()
    prompt["3"]["inputs"] |= {"fit": "face", "face_box": "0,0,999,999"}
    seen = {name: prompt[name] for name in ("1", "2", "3")}
    seen["seen"] = node("PreviewImage", images=["3", 1])
    with Messages(any_server.port, "tests") as messages:
        any_server.run(seen)
    (said,) = [text for where, text in messages.node_texts if where == "3"]
    assert "Check where the face is: 0,0,999,999 reaches beyond the 64x64 picture" in said

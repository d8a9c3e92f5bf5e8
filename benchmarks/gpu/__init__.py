"""What a clip costs on a graphics card: seconds and room, phase by phase, ours and the published code's.

    python -m benchmarks.gpu                  on the card, nine minutes at most
    python -m benchmarks.gpu --rehearse       here, small nets on the CPU: whether all of it runs
    python -m benchmarks.gpu --dry            here, real sizes on the simulated accelerator: bytes, no seconds

At MEMO's published sizes, 512x512, 16 frames a clip, guidance 3.5, with random weights: none of this depends
on what the weights say. It takes torch and safetensors and no model file. The published code runs beside ours
where MEMO_UPSTREAM_PATH names a checkout of memoavatar/memo, by MEMO_UPSTREAM_PYTHON (a Python with torch,
diffusers 0.31, transformers 4.46 and einops; by default this one).

Measurements are made in the order of their worth, each written to benchmarks/results/gpu_<card>_<date>.json
when it is done; when the time is over the rest is named, and the same command on the same day goes on there.
The table beside it is written at the end of every run.

A machine with torch and without a network needs wheels for the published code, and for nothing else. Where
there is a network (with the other machine's Python version):

    pip download -d wheels --no-deps --only-binary=:all: --python-version 3.12 \\
        --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 diffusers==0.31.0 \\
        transformers==4.46.3 tokenizers==0.20.3 huggingface_hub==0.26.2 einops==0.8.1

and on the card's machine, in this folder, with the checkout in memo-upstream/:

    pip install --no-index --no-deps --target wheels/site wheels/*.whl && PYTHONPATH=wheels/site \\
        MEMO_UPSTREAM_PATH=memo-upstream python3 -m benchmarks.gpu --results "$OUT"
"""

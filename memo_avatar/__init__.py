"""A native MEMO: the talking-head diffusion model of arXiv 2412.04448 as pure inference modules.

The package knows torch and safetensors and nothing else: layers and the attention function are passed in, so
the same code runs on ``torch.nn`` with scaled-dot-product attention and on ComfyUI's ``comfy.ops``. It reads
upstream's checkpoints (memoavatar/memo) and gives upstream's numbers. It never sees a cache, a node or a file
format of video.
"""

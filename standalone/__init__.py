"""The standalone command: what `teacache_memo.py` needs beyond the two packages. It imports no ComfyUI."""

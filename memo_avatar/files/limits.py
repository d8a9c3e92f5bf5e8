"""How much a file or a workflow may ask of us: every bound on what a stranger made, with its reason.

A bound is several times what the largest honest file needs, and small enough that refusing costs under a
second and 200 MiB.
"""

MAX_CONFIG_BYTES = 2**20
"""Of a `config.json` or `demo.json`: the published ones have 2 kB."""

MAX_JSON_BYTES = 32 * 2**20
"""Of any other JSON: a calibration of 1000 steps, the most a video may have, has 20 MB for each recording."""

MAX_JSON_DEPTH = 32
"""Of lists and objects within each other: the deepest of ours has 5."""

MAX_JSON_ROOM = 128 * 2**20
"""Bytes that the values of one JSON text may take in memory, by its commas, brackets and colons: that of
a calibration of 1000 steps takes 64 MB."""

MAX_WHOLE = 2**63
"""Of a whole number in JSON: a seed; more has no place in a tensor."""

MAX_HEADER_BYTES = 8 * 2**20
"""Of a safetensors header: MEMO's has 0.2 MB, with the notes that some training scripts add a few."""

MAX_TENSORS = 10_000
"""In one file: MEMO has 1750, the largest Stable Diffusion 2500; the nets are built from their names."""

MAX_DIMS = 8
"""Of a tensor: MEMO's have up to 5."""

MAX_ELEMENTS = 2**40
"""Of a tensor, were no dimension zero: a terabyte in 8 bits, and far from where 64 bits overflow."""

MAX_NAME = 300
"""Letters in a tensor's name: MEMO's longest has 120, and messages repeat them."""

MAX_WIDTH, MAX_LAYERS = 8192, 64
"""Of a net beside MEMO that is built from its file's shapes: the emotion nets have 1024 and 8."""

MAX_UNKNOWN_BYTES = 4 * 10**9
"""Of a download whose size is not published: the largest of them, emotion2vec, has about 2 GB."""

MAX_MESSAGE = 800
"""Letters of a message that may repeat what somebody wrote: ten lines of a console."""

MAX_SHOWN = 100
"""Letters of a foreign text that a message repeats."""

MAX_LISTED = 130
"""Letters of each name in a list of some: MEMO's own longest tensor is told whole."""

MAX_TEXT = 20_000
"""Letters of a text that a node gets: a thousand emotions over time, no burden for the queue's history."""

MAX_PLAN_TEXT = 10_000
"""Letters of emotions over time: a change every few seconds for hours."""

MAX_BOX_TEXT = 100
"""Letters of a face's box: four numbers of pixels."""

MAX_PIXELS = 178_000_000
"""Of a picture: Pillow refuses larger ones as possible decompression bombs."""

MAX_PICTURE_HEADER = 16 * 2**20
"""Bytes of a picture file that are read before its size is known: profiles and notes have a few MB. A JPEG's
are put together with time that grows with their square."""

MAX_WEBP_BYTES = 64 * 2**20
"""Of a WebP file, which is read whole before its size is known: the largest photographs have half as much."""

MAX_PICTURE_READS = 100_000
"""Pieces in which these bytes may be read: some decoders read byte by byte, and a header has some hundred."""

MAX_SCANS = 64
"""Of a progressive JPEG: encoders write about ten, and each one goes over all pixels again."""

MIN_TILE = 2**22
"""Pixels of a tile that any TIFF may have; beyond, no more than twice the picture's: a tile is held whole."""

MAX_CHANNELS = 16
"""Of a sound: two 7.1 mixes. More is no recording of a voice."""

MIN_RATE, MAX_RATE = 1_000, 768_000
"""Samples a second. Below, a few bytes are hours; above, no converter records."""

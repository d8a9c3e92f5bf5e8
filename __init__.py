"""The ComfyUI entry point: re-exports the nodes where ComfyUI is present, and nothing elsewhere.

pytest imports this file too, without ComfyUI. Only ComfyUI's absence is tolerated: an ImportError of our
own nodes stays loud.
"""

try:
    import comfy_api  # noqa: F401  # pyright: ignore[reportUnusedImport]
except ImportError:
    pass
else:
    from .nodes import comfy_entrypoint

    __all__ = ["comfy_entrypoint"]

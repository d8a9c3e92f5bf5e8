"""The ComfyUI entry point: re-exports the nodes where ComfyUI is present, and nothing elsewhere.

pytest imports this file too, as a plain module, with or without ComfyUI. Only those two are let pass: an
ImportError of our own nodes stays loud.
"""

WEB_DIRECTORY = "./web"  # help pages (docs/<node id>.md, docs/<node id>/<language>.md) and a script

try:
    import comfy_api  # noqa: F401  # pyright: ignore[reportUnusedImport]
except ImportError:
    pass
else:
    if __package__:
        from .nodes import comfy_entrypoint

        __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]

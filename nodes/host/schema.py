"""What every node shares: schemas that older hosts take too, and text on the node."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management as management
from comfy_api.latest import io
from comfy_execution.utils import get_executing_context

from .sockets import CATEGORY

logger = logging.getLogger(__name__)

ADVANCED: dict[str, Any] = {"advanced": True}
"""`extra_dict` of an input that is folded away; hosts before 0.9.2 show it."""

_FIELDS = {field.name for field in dataclasses.fields(io.Schema)}


def schema(node_id: str, display_name: str, description: str, **fields: Any) -> io.Schema:
    """A schema in our category, without the fields that this host does not know."""
    known = {name: value for name, value in fields.items() if name in _FIELDS}
    return io.Schema(
        node_id=node_id, display_name=display_name, category=CATEGORY, description=description, **known
    )


@contextmanager
def decoration(what: str) -> Iterator[None]:
    """Around what a run can do without: a preview, a text, the progress. Its failure is logged, whatever it
    is, and never ends the run; the user's cancel, which the host raises from its progress, does.
    """
    try:
        yield
    except management.InterruptProcessingException:
        raise
    except Exception as error:
        logger.warning("%s could not be shown: %s", what, error)


def show_text(node: type[io.ComfyNode], text: str) -> None:
    """Write on the node itself, where a frontend is connected."""
    _send(text, getattr(node.hidden, "unique_id", None))


def show_progress(text: str) -> None:
    """Write on the node that runs just now."""
    _send(text, getattr(get_executing_context(), "node_id", None))


def show_output(node: type[io.ComfyNode], output: dict[str, Any]) -> None:
    """Show on a node what it will replace by its own output when it is done."""
    server, context = _server(), get_executing_context()
    if server is None or context is None or node.hidden is None:
        return
    own = node.hidden.unique_id
    shown = node.hidden.dynprompt.get_display_node_id(own) if node.hidden.dynprompt else own
    message = {"node": own, "display_node": shown, "output": output, "prompt_id": context.prompt_id}
    server.send_sync("executed", message, server.client_id)


def _send(text: str, node_id: str | None) -> None:
    server = _server()
    if server is not None and node_id is not None:
        with decoration("A text on the node"):
            server.send_progress_text(text, node_id)


def _server() -> Any:
    # Where no server runs (a test, a script) the module is not there, and importing it may fail.
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)

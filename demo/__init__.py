"""The bundled demo model: a cartoon world in which a small MEMO is trained, shipped and measured."""

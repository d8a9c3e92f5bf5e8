"""How the bundled model was trained: its nets, data, objective and optimiser."""

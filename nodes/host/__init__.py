"""What the nodes ask of ComfyUI: models, memory, sampling, files. No node is defined here."""

"""What crosses between ComfyUI and a node: values in, checked; errors out, in words."""

"""A checkpoint's files: found, checked by their headers, loaded, converted, and what lies beside them."""

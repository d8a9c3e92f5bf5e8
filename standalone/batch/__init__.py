"""`teacache_memo.py batch`: many videos from a manifest, on one device, several cards or a cluster."""

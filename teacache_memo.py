"""A portrait and a voice in, a talking video out. See `python teacache_memo.py --help`."""

import sys

from standalone.command import main

if __name__ == "__main__":
    sys.exit(main())

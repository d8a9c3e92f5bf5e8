"""A portrait and a voice in, a talking video out. See `python teacache_memo.py --help`.

`from teacache_memo import teacache_forward` gives the original TeaCache4Memo script what it asks for
(`standalone.original_script`).
"""

import sys
from typing import Any


def __getattr__(name: str) -> Any:
    """Made when it is asked for: only then is the published package needed."""
    if name != "teacache_forward":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from standalone.original_script import published_forward

    return published_forward()


def main() -> int:
    """The exit status of the command, or of the set-up that has to come before it."""
    if sys.argv[1:2] == ["setup"]:
        from standalone.setup_command import main as set_up

        return set_up(sys.argv[2:])
    try:
        from standalone.command import main as run
    except ModuleNotFoundError as error:
        print(
            f"Error: expected the package {error.name} but it is not installed for {sys.executable}. "
            "Run: python teacache_memo.py setup",
            file=sys.stderr,
        )
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())

"""A portrait and a voice in, a talking video out. See `python teacache_memo.py --help`."""

import sys


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

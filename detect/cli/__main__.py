"""``python -m detect.cli`` is the `dyetrace` command."""

from detect.cli.start import main

if __name__ == "__main__":
    main()

"""Write docs/configuration.md from the configuration classes (`make docs`)."""

from pathlib import Path

from p2pd.app.config import NodeConfig
from p2pd.app.reference import page
from seeder.config import SeederConfig

TARGET = Path(__file__).parents[1] / "docs" / "configuration.md"
INTRO = """\
Every key may be left out; a wrong or unknown one is refused by name and line, and the daemon does not start.
`p2pd config check` reads a file without starting anything, `p2pd config show` tells what holds and where
it was written, `p2pd config defaults` prints the whole file below; `p2pd-seeder config …` does the same for
the seeder. A change counts from the next start of the daemon.

This page is made from the program: `make docs` writes it."""


def text() -> str:
    programs = [
        ("The node", "/etc/p2pd/p2pd.toml", NodeConfig),
        ("The seeder", "/etc/p2pd/seeder.toml", SeederConfig),
    ]
    return page("Configuration", INTRO, programs)


if __name__ == "__main__":
    TARGET.write_text(text())

"""Trainings over ssh: an agent on each host starts the ranks there and sends back what they write. No shared folder is needed."""

import sys

OLDEST = (3, 11)
if sys.version_info < OLDEST:  # on a host whose python= is another one: its words are what the user reads
    needed, found = (".".join(map(str, version)) for version in (OLDEST, sys.version_info[:3]))
    sys.exit(f"scalelab needs Python {needed} or newer, and this is {found} ({sys.executable})")

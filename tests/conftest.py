"""What every test needs of its environment."""

import os

# jsii's banner about an old Node says nothing of this project, and hides what a test prints.
os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "20")

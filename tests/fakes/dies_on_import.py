"""A reward's module that takes the process with it."""

import os

os._exit(5)

"""Record what a version of coreflow sends to an empty Swarm. See README.md in this folder."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.integration.deployments.recording import record

parser = argparse.ArgumentParser(prog="python -m tests.integration.deployments")
parser.add_argument("name", help="the version, or its commit")
parser.add_argument(
    "--python", default=sys.executable, help="the interpreter that has this version installed"
)
arguments = parser.parse_args()
with tempfile.TemporaryDirectory() as folder:
    path = record(arguments.name, arguments.python, os.environ["COREFLOW_TEST_DOCKER_HOST"], Path(folder))
sys.stdout.write(f"recorded in {path}\n")

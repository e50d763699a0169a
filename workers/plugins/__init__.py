"""Users' consumers: the .py files of the folders that `PATH_VARIABLE` names are the modules of this package.

So they may import their neighbours (`from . import names`), and none is taken for one of ours or of the standard
library's. The folders are in the environment, where the processes of `multiprocessing` find them, too: what they are
handed is named after its module.
"""

import os
from pathlib import Path

PATH_VARIABLE = "TIW_PLUGINS_PATH"

__path__ = [folder for folder in os.environ.get(PATH_VARIABLE, "").split(os.pathsep) if folder]


def add_folder(folder: Path) -> None:
    """Let the .py files of a folder be modules of this package, here and in processes that are started from now on."""
    if str(folder) not in __path__:
        __path__.append(str(folder))
        os.environ[PATH_VARIABLE] = os.pathsep.join(__path__)

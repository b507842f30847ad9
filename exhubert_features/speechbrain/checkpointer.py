"""A Checkpointer whose checkpoints are whole, whenever the run is killed or the power fails."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from speechbrain.utils.checkpoints import Checkpoint, Checkpointer
from speechbrain.utils.distributed import ddp_barrier, if_main_process

from ..files import name_folder

PARTIAL = "partial-"


class WholeCheckpointer(Checkpointer):
    """SpeechBrain's Checkpointer, but a checkpoint appears under its name once it is on the disk.

    SpeechBrain writes the file that makes a folder a checkpoint first: a run killed while it
    saves cannot be resumed until that folder is deleted by hand. And it deletes the checkpoint
    before while the new one may still be in memory only: a power cut some seconds later leaves
    none. Here the new one is flushed first, its files, its folder and its name.
    """

    def save_checkpoint(self, *arguments: Any, **options: Any) -> Checkpoint | None:
        """Save as SpeechBrain does, flush, then give the folder its name."""
        if if_main_process():
            self._sweep()
        saved = super().save_checkpoint(*arguments, **options)
        ddp_barrier()  # other processes may write files, too
        if saved is not None:  # on the main process
            whole = saved.path.with_name(saved.path.name.removeprefix(PARTIAL))
            name_folder(saved.path, whole, replace=True)
            self._sweep()  # one of the same name that was replaced
            files = {name: whole / path.name for name, path in saved.paramfiles.items()}
            saved = Checkpoint(whole, saved.meta, files)
        ddp_barrier()
        return saved

    def _sweep(self) -> None:
        for leftover in self.checkpoints_dir.glob(f"{PARTIAL}*"):
            shutil.rmtree(leftover)

    def _new_checkpoint_dirpath(self) -> Path:
        whole = super()._new_checkpoint_dirpath()
        return whole.with_name(PARTIAL + whole.name)

    def _custom_checkpoint_dirpath(self, name: str) -> Path:
        whole = super()._custom_checkpoint_dirpath(name)
        return whole.with_name(PARTIAL + whole.name)

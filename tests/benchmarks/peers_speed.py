"""How fast RecTools' SASRec takes steps, for training_speed.py; run by it with the peers' Python.

    python tests/benchmarks/peers_speed.py FOLDER LOSS STEPS

Reads plays.parquet and requests.parquet of FOLDER, as peers_lists.py does, and prints one JSON line: tokens (plays that
are read, padding not counted) and CPU seconds of STEPS steps after a first one, loading of their batches included.
"""

import json
import sys
import time
from pathlib import Path

import torch
from peers_lists import SIZES, Plays
from pytorch_lightning import Callback, Trainer
from rectools.dataset import Dataset
from rectools.models import SASRecModel


class Clock(Callback):
    """Adds up tokens and CPU seconds of every step but the first."""

    def __init__(self):
        self.tokens, self.steps, self.begun, self.seconds = 0, 0, None, 0.0

    def on_train_batch_end(self, trainer, module, outputs, batch, number):
        """Note the end of a step; the first one starts the clock."""
        now = time.process_time()
        if self.begun is None:
            self.begun = now
            return
        self.tokens += int((batch["x"] != 0).sum())
        self.steps += 1
        self.seconds = now - self.begun


def main():
    """Take the steps and print what they cost."""
    folder, loss, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(1)

    def trainer():
        return Trainer(
            max_epochs=1,
            limit_train_batches=steps + 1,
            callbacks=[Clock()],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    plays = Plays(folder)
    negatives = {"n_negatives": 256} if loss == "sampled_softmax" else {}
    model = SASRecModel(**SIZES, **negatives, loss=loss, get_trainer_func=trainer)
    model.fit(Dataset.construct(plays.interactions(plays.fitted)))
    (clock,) = (own for own in model.fit_trainer.callbacks if isinstance(own, Clock))  # a copy of what it was given
    print(json.dumps({"tokens": clock.tokens, "steps": clock.steps, "cpu_seconds": clock.seconds}))


if __name__ == "__main__":
    main()

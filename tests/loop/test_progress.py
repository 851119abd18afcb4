"""Plain lines on a training: accuracies are those of the epoch that they name."""

from ltkd.loop.evaluate import Evaluation
from ltkd.loop.progress import Progress


def test_accuracies_of_an_earlier_epoch_say_so(caplog):
    caplog.set_level("INFO")
    progress = Progress("student", num_epochs=3, steps_per_epoch=1, first_step=0, mode="lines", part="test")
    evaluation = Evaluation(40.0, 40.0, {"head": 60.0, "tail": 20.0}, [60.0, 20.0], [None, None], {}, 1.0)
    progress.epoch_done(1, 2.0, None)
    progress.epoch_done(2, 1.5, evaluation)
    progress.epoch_done(3, 1.0, None)
    progress.close()
    lines = [record.getMessage() for record in caplog.records]
    assert "test" not in lines[0]
    assert "epoch 2/3  loss 1.500  test: all 40.0 head 60.0 tail 20.0" in lines[1]
    assert "epoch 3/3  loss 1.000  test of epoch 2: all 40.0" in lines[2]

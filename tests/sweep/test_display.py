"""What a sweep shows."""

import io

from ltkd.sweep import Display, JobOutcome, check_jobs


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_without_a_terminal(tmp_path):
    one, two = check_jobs([[f"output_root={tmp_path}", f"seed={seed}"] for seed in range(2)])
    stream = io.StringIO()
    display = Display(stream)
    display.begin([JobOutcome(one, "skipped", "finished before")], [two], 1)
    display.started(two)
    display.refresh([two])
    display.paces[two.run.directory].next_line = 0.0  # a minute later
    display.refresh([two])
    display.refresh([two])
    display.ended(JobOutcome(two, "failed", "loss is nan", 61))
    display.close()
    assert stream.getvalue().splitlines() == [
        "2 runs: 1 ended before, 1 to run, 1 at a time",
        "started: seed=1",
        "seed=1: teacher resnet20 starts",
        "failed: seed=1: loss is nan  (2/2, 01:01)",
    ]


def test_a_block_of_lines_on_a_terminal_is_drawn_over(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("LINES", "24")
    jobs = check_jobs([[f"output_root={tmp_path}", f"seed={seed}"] for seed in range(2)])
    display = Display(Terminal())
    display.begin([], jobs, 2)
    for job in jobs:
        display.started(job)
    display.refresh(jobs)
    display.ended(JobOutcome(jobs[0], "failed", "loss is nan", 1))
    display.refresh(jobs[1:])
    display.close()
    block = ["  seed=0: teacher resnet20 st", "  seed=1: teacher resnet20 st", "  0 of 2 ended, 2 running"]
    later = ["  seed=1: teacher resnet20 st", "  1 of 2 ended, 1 running"]
    assert display.stream.getvalue() == (
        "2 runs: 0 ended before, 2 to run, 2 at a time\n"
        + "\n".join(block)
        + "\n\x1b[3F\x1b[Jfailed: seed=0: loss is nan  (1/2, 00:01)\n"
        + "\n".join(later)
        + "\n\x1b[2F\x1b[J"
    )


def test_no_more_lines_are_drawn_than_the_terminal_has(tmp_path, monkeypatch):
    monkeypatch.setenv("LINES", "5")
    jobs = check_jobs([[f"output_root={tmp_path}", f"seed={seed}"] for seed in range(9)])
    display = Display(Terminal())
    for job in jobs:
        display.started(job)
    display.refresh(jobs)
    assert display.drawn == 4
    assert "9 running" in display.stream.getvalue()


def test_a_silent_display_writes_nothing(tmp_path):
    [job] = check_jobs([[f"output_root={tmp_path}"]])
    display = Display(None)
    display.begin([], [job], 1)
    display.started(job)
    display.paces[job.run.directory].next_line = 0.0
    display.refresh([job])
    display.ended(JobOutcome(job, "failed", "loss is nan", 1))
    display.close()


def test_a_stream_that_breaks_costs_the_display_alone(tmp_path):
    class Broken(Terminal):
        def flush(self):
            raise BrokenPipeError

    one, two = check_jobs([[f"output_root={tmp_path}", f"seed={seed}"] for seed in range(2)])
    for stream in (Broken(), Terminal()):
        display = Display(stream)
        display.begin([], [one, two], 2)
        display.started(one)
        display.refresh([one])
        stream.flush = Broken().flush  # now at the latest
        display.ended(JobOutcome(one, "done", None, 1.0))
        display.started(two)
        display.refresh([two])
        display.close()
        assert display.stream is None
        assert not display.live

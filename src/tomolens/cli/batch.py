"""Do one task with every volume below a folder, and keep the results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from tomolens.cli.jobs import Job, find_jobs
from tomolens.cli.stopping import signals_held
from tomolens.cli.summary import Row, Status, Summary
from tomolens.core.errors import OptionError, ReadError
from tomolens.core.progress import Progress, Step
from tomolens.io.kspace import is_kspace, read_kspace
from tomolens.io.read import read_volume
from tomolens.pipelines.batch import Failure, Outcome, R, run_each
from tomolens.reports.kinds import KINDS
from tomolens.reports.page import write_index
from tomolens.reports.results import Request, read_result, write_error, write_result

if TYPE_CHECKING:
    from tomolens.cli.console import Narrator
    from tomolens.cli.tasks import Task, Work
    from tomolens.core.card import ModelCard
    from tomolens.core.kspace import KSpace
    from tomolens.core.volume import Volume
    from tomolens.io.dicom_volume import Missing, Tilt
    from tomolens.models.registry import Bundle

_STYLES = {Status.DONE: "", Status.SKIPPED: "dim", Status.REFUSED: "dim", Status.FAILED: "bold red"}


@dataclass(frozen=True)
class Wish:
    """What was asked for on the command line."""

    source: Path
    out: Path
    device: str = "auto"
    tilt: Tilt = "keep"
    missing: Missing = "refuse"
    modality: str | None = None
    again: bool = False


class Batch(Generic[R]):
    """One call of ``tomolens detect``, ``segment`` or ``reconstruct``.

    Raises
    ------
    ModelError
        If the model's folder is incomplete.
    OptionError
        If the output folder is a file, or holds the results of another command.
    """

    def __init__(self, wish: Wish, task: Task[R], narrator: Narrator) -> None:
        _check_out(wish.out, task)
        self._task: Task[R] = task
        self._wish, self._narrator = wish, narrator
        self._second_stage = _named(task.second_stage)
        self._why: dict[str, str] = {}
        self.summary = Summary(task.kind.counted)

    @property
    def _card(self) -> ModelCard:
        return self._task.card

    def run(self) -> Summary:
        """Do it; what is finished stays whatever happens to the rest.

        Raises
        ------
        OptionError
            If the device is unknown or not in this machine.
        """
        pending = self._sort(self._find())
        work = self._load() if pending else None
        if self.summary.rows or pending:
            with self._reported():
                if work is not None:
                    self._work_through(pending, work)
        return self.summary

    def rehearse(self) -> Summary:
        """Say what `run` would do; write nothing, load no model."""
        for job in self._sort(self._find()):
            problems = [str(p) for p in job.series.problems if p.refused] if job.series else []
            status = Status.FAILED if problems else Status.DONE
            self._note(job, status, message="; ".join(problems) or self._again(job))
        return self.summary

    def _find(self) -> Sequence[Job]:
        found = find_jobs(self._wish.source, self._narrator.step, kspace=self._task.kspace, out=self._wish.out)
        self.summary.found, self.summary.passed_over = len(found.jobs), len(found.passed_over)
        self._narrator.say(_told(self._wish.source, len(found.jobs), len(found.passed_over)))
        self.summary.kspace = not self._task.kspace and any(is_kspace(file.path) for file in found.passed_over)
        self._narrator.begin(len(found.jobs))
        return found.jobs

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Write the summary and the page also where the work was stopped."""
        self._wish.out.mkdir(parents=True, exist_ok=True)
        try:
            yield
            self.summary.interrupted = False
        finally:
            self._narrator.step(Step("write the page", 0, 0))
            self.summary.write(self._wish.out)
            refused = self.summary.of(Status.REFUSED)
            write_index(
                self._task.kind, self._wish.out, {f"{row.series} ({row.modality})": row.message for row in refused}
            )

    def _sort(self, jobs: Sequence[Job]) -> list[Job]:
        """Note what is refused or finished, and return the others."""
        pending = []
        for job in jobs:
            refusal = self._task.refusal(job) or job.refusal(self._card.input.modality)
            if refusal:
                self._note(job, Status.REFUSED, message=refusal)
                continue
            finished, self._why[job.name] = self._finished(job)
            if finished is None:
                pending.append(job)
            else:
                self._note(job, Status.SKIPPED, self._task.kind.count(finished))
        return pending

    def _finished(self, job: Job) -> tuple[Any, str]:
        """The result of an earlier call, or None and why it will not do."""
        kept, why = self._standing(job)
        return (None, "asked for") if kept is not None and self._wish.again else (kept, why)

    def _standing(self, job: Job) -> tuple[Any, str]:
        """The result in the output folder if the same was asked for, or None and why it is not the same."""
        folder = self._wish.out / job.name
        if not (folder / "series.json").exists():
            return None, ""
        try:
            result = read_result(self._task.kind, folder)
        except ReadError as damaged:
            return None, str(damaged)
        changes = result.request.differences(self._request(job))
        return (None, changes) if changes else (result.content, "")

    def _request(self, job: Job) -> Request:
        wish, card = self._wish, self._card
        return Request(
            model=card.name,
            model_version=card.version,
            weights_sha256=self._task.weights_sha256,
            second_stage=self._second_stage,
            options=self._task.options,
            min_score=self._task.min_score,
            tilt=wish.tilt,
            missing=wish.missing,
            modality=wish.modality,
            files=job.files,
            fingerprint=job.fingerprint,
        )

    def _load(self) -> Work[R]:
        self._narrator.step(Step("load model", 0, 0))
        with signals_held():
            return self._task.load(self._wish.device)

    def _work_through(self, pending: Sequence[Job], work: Work[R]) -> None:
        self._narrator.expect(len(pending))
        outcomes = run_each(pending, self._read, work, keep=self._keep, progress=self._narrator.step)
        with closing(outcomes):
            for outcome in outcomes:
                self._note_outcome(outcome)

    def _read(self, job: Job, progress: Progress) -> Volume | KSpace:
        wish = self._wish
        if job.kspace and isinstance(job.source, Path):
            return read_kspace(job.source)
        return read_volume(job.source, modality=wish.modality, tilt=wish.tilt, missing=wish.missing, progress=progress)

    def _keep(self, job: Job, made: R) -> int:
        """Write a result; how many there are of what is counted is all that is left of it."""
        if job.series is None:  # without a SeriesInstanceUID its name is what it can be traced by
            made = replace(made, run=replace(made.run, source=job.description))
        if made.volume is not None:
            about = job.about(made.volume)
            write_result(self._task.kind, self._wish.out / job.name, about, self._request(job), made)
        return self._task.kind.count(made)

    def _again(self, job: Job) -> str:
        why = self._why[job.name]
        return f"done again: {why}" if why else ""

    def _note_outcome(self, outcome: Outcome[Job, int]) -> None:
        failure, seconds = outcome.failure, outcome.seconds
        if outcome.result is not None:
            self._note(outcome.item, Status.DONE, outcome.result, seconds, self._again(outcome.item))
        elif failure is not None and failure.refused:
            self._note(outcome.item, Status.REFUSED, None, seconds, failure.message)
        elif failure is not None:
            self._keep_error(outcome.item, failure)
            self._note(outcome.item, Status.FAILED, None, seconds, failure.message)

    def _keep_error(self, job: Job, failure: Failure) -> None:
        """Write why it failed, unless a good result stands there: another call may have finished it meanwhile."""
        with suppress(OSError):  # the folder may be what failed; the message stands in the summary too
            if self._standing(job)[0] is None:
                write_error(self._wish.out / job.name, failure.message, failure.details)

    def _note(
        self, job: Job, status: Status, count: int | None = None, seconds: float | None = None, message: str = ""
    ) -> None:
        row = _row(job, status, message)
        row = replace(row, count=count, seconds=None if seconds is None else round(seconds, 2))
        self.summary.rows.append(row)
        self._narrator.count(_line(row, self.summary.counted), _STYLES[status])


def _check_out(out: Path, task: Task[Any]) -> None:
    if out.exists() and not out.is_dir():
        raise OptionError(f"{out} is a file; -o takes a folder.")
    for kind in KINDS:
        if kind.command != task.kind.command and kind.stands_in(out):
            raise OptionError(f"{out} holds results of `tomolens {kind.command}`; -o takes a folder of its own.")


def _told(source: Path, series: int, passed_over: int) -> str:
    rest = f"; {passed_over} other file{'s' * (passed_over != 1)} (tomolens info says why)" if passed_over else ""
    return f"{source}: {series} series or image file{'s' * (series != 1)}{rest}"


def _row(job: Job, status: Status, message: str) -> Row:
    series = job.series
    return Row(
        series=job.name,
        series_uid=series.uid if series else "",
        part=series.part if series else 0,
        description=job.description,
        modality=series.modality if series else "",
        status=status,
        message=message,
    )


def _line(row: Row, counted: str) -> str:
    """A row for people."""
    parts = [f"{row.status:<8} {row.series}"]
    if row.count is not None:
        parts.append(f"{row.count} {counted.removesuffix('s') if row.count == 1 else counted}")
    if row.seconds is not None:
        parts.append(f"{row.seconds:.1f} s")
    return "  ".join([*parts, " ".join(row.message.split())]).rstrip()


def _named(bundle: Bundle | None) -> str:
    """A model as one text that changes with its weights; empty where there is none."""
    return "" if bundle is None else f"{bundle.card.name} {bundle.card.version} {bundle.weights_sha256[:12]}"

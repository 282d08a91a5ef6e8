"""The experiment: what each kernel does under each load, computed by the library itself.

Every figure of a run comes from `MbufPools` in virtual time, on memory that is only counted. The
workloads, the kernels and the questions are data; each run has a seed, and the same seed gives the
same figures in any process. `mbufpools compare` is its command line, `make report` writes its
report. What was measured on the kernel's own code is quoted beside the runs; that is data in
``_measured``, which nothing here computes again.

- `QUESTIONS` and `find_question`: the questions of the thread, each with its cells, tables and
  verdict.
- `KERNELS`: the kernels that are compared. `WORKLOADS`: what is simulated, and `PARAMETERS`: with
  which numbers. `DESCRIBED` also has the unit and the meaning of each `Parameter`. `measure` runs a
  workload once.
- `BRACKETS` says what stands in brackets in the tables.
- `run` runs cells on an executor, such as that of `processes` or of `dask_executor`.
- `Results`, `Folder`, `pack`, `unpack`: what was measured, in memory and in files.

The modules, from the foundations up. Each imports only modules above it:

================  ======================================================================
``_clock``        events in virtual time, beside the library's own tasks
``_kernels``      the kernels, as data
``_machine``      one simulated machine, and the account of what its users went through
``_parameters``   the parameters of the workloads: defaults, units, meanings
``_incident``     the incident: receive rings, senders, NFS, hogs
``_workloads``    the smaller workloads
``_results``      cells and results, in memory and in files
``_runner``       runs cells on an executor
``_intervals``    means and medians, with intervals or ranges
``_measured``     what was measured on the kernel's own code
``_faults``       the faults of the patch, in words
``questions``     the questions of the thread, one module each; a package of its own
``_findings``     five findings
``_mail``         four mails to the list
``_story``        one small run, event by event
``report``        the HTML report and its pictures; a package of its own
================  ======================================================================
"""

from __future__ import annotations

from ._findings import findings
from ._intervals import BRACKETS
from ._kernels import KERNELS, Kernel
from ._mail import MAIL_CELLS, Mail, mails
from ._parameters import DESCRIBED, PARAMETERS, Parameter
from ._results import Cell, Figures, Folder, Results, pack, unpack
from ._runner import dask_executor, processes, run
from ._workloads import WORKLOADS, measure
from .questions import LONGEST, QUESTIONS, Question, find_question

__all__ = [
    "BRACKETS",
    "DESCRIBED",
    "KERNELS",
    "LONGEST",
    "MAIL_CELLS",
    "PARAMETERS",
    "QUESTIONS",
    "WORKLOADS",
    "Cell",
    "Figures",
    "Folder",
    "Kernel",
    "Mail",
    "Parameter",
    "Question",
    "Results",
    "dask_executor",
    "find_question",
    "findings",
    "mails",
    "measure",
    "pack",
    "processes",
    "run",
    "unpack",
]

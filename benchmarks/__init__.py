"""What the library costs beside its peers.

    python -m benchmarks [asyncio] [uvloop] [trio] [--form smoke|short|full] [--json FILE]

Each row of the table is run in turn with its peer, in one process. The ratio is the median of the
ratios of all rounds. Only the ratio says something: one machine runs fast at one time and slowly at
another, and so does the peer.

==============  ==========================================================================
``_forms``      how long the benchmarks run
``_rows``       a row: ours, the peer's, the ratio, the goal, and whether it holds
``_record``     the rows of one run with their environment, as a table and as JSON
``_timing``     functions that are run in turn, and their times
``_pairs``      an item is taken and comes back, and no task waits
``_handing``    an item goes from one task to another
``_crowd``       tasks that wait, as many as are wanted
``_crowds``     many tasks wait: their memory, the wakeup and the cancellation of all
``_footprint``  the memory of items, and pages that come and go
``_scale``      many pools, many items, many waiters, a large budget
``_fixed``      the price of the import and of debug mode
``_proxy``      a proxy of `mbufpools.net` beside one of asyncio's streams
``_load``       the clients and the server of a proxy, in a process of their own
==============  ==========================================================================

Two more programs are independent of these: ``benchmarks.lab`` compares the lab with another
explorer, and ``benchmarks.passes`` measures the default of `max_passes`.
"""

"""The state that tasks share in the primitives of asyncio, anyio and trio, by module and class.

These libraries do not know of the lab, so the lab keeps the table for them. A name that a release
does not have declares nothing; a test compares the table with what is installed.
"""

from __future__ import annotations

from .hooks import CHANGED, VALUE, State

__all__ = ["NAMING", "STATE"]

STATE: State = {
    "asyncio.locks": {
        "Event": {"_value": VALUE, "_waiters": VALUE},  # a cancelled wait leaves the list
        "Lock": {"_locked": VALUE, "_waiters": CHANGED},
        "Condition": {"_waiters": CHANGED},
        "Semaphore": {"_value": VALUE, "_waiters": CHANGED},
        "Barrier": {"_state": VALUE, "_count": VALUE},
    },
    "asyncio.queues": {
        "Queue": {
            "_queue": CHANGED,
            "_getters": CHANGED,
            "_putters": CHANGED,
            "_unfinished_tasks": VALUE,
            "_is_shutdown": VALUE,
        },
    },
    "asyncio.streams": {
        "StreamReader": {
            "_buffer": CHANGED,
            "_eof": VALUE,
            "_exception": VALUE,
            "_waiter": VALUE,
        },
    },
    "asyncio.timeouts": {"Timeout": {"_state": VALUE, "_when": VALUE}},
    "asyncio.taskgroups": {
        "TaskGroup": {"_entered": VALUE, "_aborting": VALUE, "_exiting": VALUE},
    },
    "anyio._backends._asyncio": {
        "TaskGroup": {"_entered": VALUE},
        "Lock": {"_owner_task": VALUE, "_waiters": CHANGED},
        "Semaphore": {"_value": VALUE, "_waiters": CHANGED},
        "CapacityLimiter": {
            "_total_tokens": VALUE,
            "_borrowers": CHANGED,
            "_wait_queue": CHANGED,
        },
    },
    "anyio._backends._trio": {"TaskGroup": {"_entered": VALUE, "_active": VALUE}},
    "anyio._core._synchronization": {
        "Condition": {"_waiters": CHANGED},
        "ResourceGuard": {"_guarded": VALUE},
        # Made outside of an event loop, they make what they stand for when they are first used.
        "EventAdapter": {"_internal_event": CHANGED, "_is_set": VALUE},
        "LockAdapter": {"_internal_lock": CHANGED},
        "SemaphoreAdapter": {"_internal_semaphore": CHANGED},
        "CapacityLimiterAdapter": {"_internal_limiter": CHANGED},
    },
    "anyio.streams.memory": {
        "_MemoryObjectStreamState": {
            "buffer": CHANGED,
            "open_send_channels": VALUE,
            "open_receive_channels": VALUE,
            "waiting_receivers": CHANGED,
            "waiting_senders": CHANGED,
        },
        "MemoryObjectReceiveStream": {"_closed": VALUE},
        "MemoryObjectSendStream": {"_closed": VALUE},
    },
    "anyio.streams.buffered": {
        "BufferedByteReceiveStream": {"_buffer": CHANGED, "_closed": VALUE},
    },
    "trio._sync": {
        "Event": {"_flag": VALUE, "_tasks": CHANGED},
        "CapacityLimiter": {
            "_total_tokens": VALUE,
            "_borrowers": CHANGED,
            "_pending_borrowers": CHANGED,
        },
        "Semaphore": {"_value": VALUE},
        "_LockImpl": {"_owner": VALUE},
    },
    "trio._util": {"ConflictDetector": {"_held": VALUE}},
    "trio.testing._sequencer": {"Sequencer": {"_claimed": CHANGED, "_broken": VALUE}},
    "trio.testing._memory_streams": {
        "_UnboundedByteQueue": {"_data": CHANGED, "_closed": VALUE},
        "MemoryReceiveStream": {"_closed": VALUE},
        "_LockstepByteQueue": {
            "_data": CHANGED,
            "_sender_closed": VALUE,
            "_receiver_closed": VALUE,
            "_receiver_waiting": VALUE,
        },
    },
    "trio._core._parking_lot": {"ParkingLot": {"_parked": CHANGED, "broken_by": CHANGED}},
    "trio._core._run": {
        "_TaskStatus": {"_value": VALUE},
    },
    "trio._core._unbounded_queue": {"UnboundedQueue": {"_data": CHANGED, "_can_get": VALUE}},
    "trio._channel": {
        "MemoryChannelState": {
            "data": CHANGED,
            "open_send_channels": VALUE,
            "open_receive_channels": VALUE,
            "send_tasks": CHANGED,
            "receive_tasks": CHANGED,
        },
        "MemoryReceiveChannel": {"_closed": VALUE},
        "MemorySendChannel": {"_closed": VALUE},
    },
}

NAMING: dict[str, dict[str, str]] = {
    "anyio.streams.memory": {
        "MemoryObjectReceiveStream": "_state",
        "MemoryObjectSendStream": "_state",
    },
}
"""By module and class, an attribute that is set once, when an object is made, and so gives it its
name. Of `STATE` the first access gives it, if no attribute there is set when the object is made."""

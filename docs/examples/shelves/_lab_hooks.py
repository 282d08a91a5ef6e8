"""What the shelves tell the lab about themselves."""

from mbufpools.lab.hooks import CHANGED, VALUE, Wait

STATE = {"shelves": {"Shelf": {"reader": VALUE, "turns": CHANGED}}}


def is_service(name):
    return name == "shelves inventory"


def only_ticks(coroutine):
    while coroutine is not None:
        if getattr(coroutine, "__qualname__", "") == "Shelf.count_books":
            return True
        coroutine = getattr(coroutine, "cr_await", None)
    return False


def waits_for(frame):
    if frame.f_code.co_qualname == "Shelf.take":
        shelf = frame.f_locals["self"]
        return Wait("the book of a shelf", shelf)
    return None


def holders(shelf, names):
    return ["shelf:", f"{shelf.reader} has the book"]

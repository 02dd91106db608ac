"""What EnergiBridge's panics mean, and the command that mends each."""

from contract.errors import JouleBedError, MeterError, MeterUnavailableError

PANIC_STATUS = 101
"""Exit status of a Rust program that panicked."""

_AT_START = (
    (
        ("Permission denied", "os error 13", "Operation not permitted", "os error 1)"),
        "it may not read the energy registers. Run: sudo modprobe msr && "
        "sudo setcap cap_sys_rawio=ep $(command -v energibridge) && sudo chmod a+r /dev/cpu/*/msr",
    ),
    (
        ("Input/output error", "os error 5"),
        "this processor lacks an energy register that it reads (graphics or DRAM on many servers; all in a VM). "
        "Use the meter rapl instead: it takes the registers that are there",
    ),
    (
        ("No such file", "os error 2)", "No such device"),
        "there are no energy registers to read. Run: sudo modprobe msr (a VM has none)",
    ),
)
"""Panics of the start: the machine must be mended."""

_ON_THE_WAY = (
    (
        ("`None` value", "None value"),
        "its child was killed by a signal. Look for the reason in child.log and, for lack of memory, run: sudo dmesg",
    ),
    (
        ("overflow when subtracting duration", "subtract with overflow"),
        "reading the sensors took longer than the interval. Set meter.period_s higher",
    ),
    (
        ("SystemTimeError", "earlier than self", "later than self"),
        "the clock was set back while it measured. Let NTP slew, not step, and run the trial again",
    ),
)
"""Panics on the way: this attempt is lost."""


def explain_panic(returncode: int, words: str) -> JouleBedError | None:
    """An error that says what to do; None unless EnergiBridge itself panicked.

    Told by its status and its words: its child may exit with 101 too.

    Args:
        returncode: of EnergiBridge.
        words: what it and its child wrote.
    """
    if returncode != PANIC_STATUS or "panicked at" not in words:
        return None
    panic = words[words.index("panicked at") :][:500]
    if (advice := _advice(panic, _AT_START)) is not None:
        return MeterUnavailableError(f"EnergiBridge panicked: {advice}.", panic=panic)
    if (advice := _advice(panic, _ON_THE_WAY)) is not None:
        return MeterError(f"EnergiBridge panicked: {advice}.", panic=panic)
    return MeterError(
        "EnergiBridge panicked (detail.panic). It does so when its child is killed, when collecting takes longer "
        "than the interval, and when the clock is set back: see child.log.",
        panic=panic,
    )


def advice_on(words: str) -> str | None:
    """What to do about a panic; None where it is not a known one.

    Args:
        words: what EnergiBridge wrote.
    """
    return _advice(words, _AT_START + _ON_THE_WAY)


def _advice(words: str, table: tuple[tuple[tuple[str, ...], str], ...]) -> str | None:
    return next((advice for signs, advice in table if any(sign in words for sign in signs)), None)

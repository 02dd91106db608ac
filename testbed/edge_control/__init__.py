"""Edge control on a testbed: batch after batch, each at clocks, batch size and exit layer that a chooser takes."""

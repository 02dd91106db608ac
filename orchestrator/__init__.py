"""Plans, dispatches and persists; never imports an engine."""

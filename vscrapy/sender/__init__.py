"""The process at the user's terminal: it submits a task, follows it, and is home to what must happen once."""

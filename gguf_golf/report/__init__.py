"""One page that says which file to take and how sure that is; the same as Markdown and CSV."""

from gguf_golf.report.page import write_report

__all__ = ["write_report"]

"""`python -m playbill.cli`, for processes that start others."""

from playbill.cli.main import main

main(prog_name="playbill")

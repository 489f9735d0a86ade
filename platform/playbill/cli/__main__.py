"""`python -m playbill.cli`, for processes that start others."""

from playbill.cli.main import main

if __name__ == "__main__":  # a process that this one starts imports it under another name
    main(prog_name="playbill")

"""A command as a person types it, in this process."""


def call(monkeypatch, captured, main, *words):
    """(exit code, stdout, stderr); `captured` is pytest's capsys or, where other processes print too, capfd."""
    monkeypatch.setattr("sys.argv", ["program", *words])
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    return code, *captured.readouterr()

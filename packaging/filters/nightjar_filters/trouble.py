"""What ends the program, in one sentence that says what to do."""


class Trouble(Exception):
    """Something that a person has to put right. `code` is the exit code of sysexits.h."""

    def __init__(self, sentence: str, code: int = 1) -> None:
        super().__init__(sentence)
        self.code = code


CONFIGURATION = 78  # EX_CONFIG: starting again does not help
TRY_AGAIN = 75  # EX_TEMPFAIL: network, broker, disk

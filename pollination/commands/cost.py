"""stub"""

EXAMPLE = ""


def add_arguments(p): ...
def run(a): ...

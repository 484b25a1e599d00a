import signal
import subprocess
import threading

import psutil
import pytest

from spillway.testing.process_groups import ProcessGroup


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -9 $$", 137), ("true", 0)])
def test_an_exit_code_is_as_containers_have_it(script: str, code: int) -> None:
    group = ProcessGroup(["sh", "-c", script])
    assert group.wait() == code
    assert group.exit_code() == code


def test_a_signal_reaches_the_children_too() -> None:
    group = ProcessGroup(["sh", "-c", "sleep 300 & wait"], stdout=subprocess.PIPE)
    assert group.exit_code() is None
    group.signal(signal.SIGKILL)
    assert group.process.stdout.read() == b""  # the child held it too
    assert group.wait() == 137
    group.process.stdout.close()


def test_children_end_with_the_command() -> None:
    group = ProcessGroup(["sh", "-c", "sleep 300 & echo $!"], stdout=subprocess.PIPE)
    child = psutil.Process(int(group.process.stdout.readline()))
    group.wait()
    child.wait(30)
    group.process.stdout.close()


def test_no_signal_goes_to_a_number_that_was_given_back() -> None:
    """What ends by itself while others signal it is the moment at which a number may be a stranger's."""
    for _ in range(20):
        group = ProcessGroup(["true"])
        failures: list[BaseException] = []

        def tell(group=group, failures=failures) -> None:
            try:
                while group.process.returncode is None:
                    group.signal(signal.SIGCONT)
                group.signal(signal.SIGKILL)
            except OSError as error:
                failures.append(error)

        tellers = [threading.Thread(target=tell) for _ in range(3)]
        for teller in tellers:
            teller.start()
        codes = {group.wait(), group.wait(), group.exit_code()}
        for teller in tellers:
            teller.join()
        assert (codes, failures) == ({0}, [])

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spillway.runtime.ray_checkpoints import save_ray, to_ray

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Lab

train = pytest.importorskip("ray.train")
tune = pytest.importorskip("ray.tune")


@pytest.mark.parametrize("kind", [train.Checkpoint, tune.Checkpoint], ids=["train", "tune"])
def test_a_checkpoint_of_ray_comes_back_with_its_metadata(
    lab: Lab, tmp_path: Path, kind: type
) -> None:
    folder = tmp_path / "ray"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "model.pt").write_bytes(b"weights")
    theirs = kind.from_directory(str(folder))
    theirs.set_metadata({"framework": "any"})
    save_ray(lab.session(), 3, theirs, epoch=1)

    restored = lab.session(token=2).restore()
    assert restored is not None
    assert (restored.step, restored.metadata) == (3, {"epoch": 1})
    again = to_ray(restored, tmp_path / "again", kind=kind)
    assert type(again) is kind
    assert again.get_metadata() == {"framework": "any"}
    with again.as_directory() as place:
        assert (tmp_path / "again").samefile(place)
    assert (tmp_path / "again" / "deep" / "model.pt").read_bytes() == b"weights"


def test_ray_gets_a_folder_of_its_own_when_none_is_given(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "model").write_bytes(b"weights")
    lab.session().checkpoint(3, files=tmp_path / "model")
    restored = lab.session(token=2).restore()
    assert restored is not None
    with to_ray(restored).as_directory() as place:
        assert place.startswith(str(tmp_path))

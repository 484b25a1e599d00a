"""Beside the user's code on the leased machine: the session, the wrapper that runs an entry point, and what they write.

Three lines make a training loop survive preemption:

```python
def train(session: Session, steps: int) -> dict[str, float]:
    model, optimizer, start = build(), ..., 0
    if checkpoint := session.restore():                                        # 1
        model.load_state_dict(checkpoint.state["model"])
        optimizer.load_state_dict(checkpoint.state["optimizer"])
        start = checkpoint.step
    for step in range(start + 1, steps + 1):
        loss = train_step(model, optimizer, batch_at(step))
        session.progress(step, steps, loss=loss)                               # 2
        if session.should_checkpoint(step):                                    # 3
            session.checkpoint(step, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    return {"loss": loss}
```

`checkpoint` raises `Preempted` when the capacity is taken back; the wrapper turns that into the exit code that says so, and
the next attempt goes on from there. Try it in a notebook with `Session.local(folder)`.
"""

from spillway.checkpoints.formats import Pickled
from spillway.runtime.session import Checkpoint, Preempted, Session

__all__ = ["Checkpoint", "Pickled", "Preempted", "Session"]

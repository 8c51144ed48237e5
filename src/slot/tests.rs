use super::*;

fn slot() -> Arc<Slot> {
    let name = Name {
        module: "",
        function: "test",
    };
    Slot::new(TaskId(1), name)
}

/// What somebody does who has seen that a task ended.
struct Then(Arc<Slot>);

impl Drop for Then {
    fn drop(&mut self) {
        self.0.fail(Cause::Cancelled);
    }
}

#[test]
fn who_waits_for_many_learns_of_them_as_they_ended() {
    let (first, second, ready) = (slot(), slot(), Arc::<Ready>::default());
    second.watch(&ready, 2);
    first.watch(&ready, 1);
    assert!(first.hold(Box::new(Then(Arc::clone(&second)))));
    first.fail(Cause::Cancelled);
    let ended: Vec<_> = std::iter::from_fn(|| ready.try_next()).collect();
    assert_eq!(ended, [1, 2]);
}

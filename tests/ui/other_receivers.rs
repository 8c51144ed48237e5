use std::rc::Rc;

use inparallel::task;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Thing;

impl Thing {
    #[task]
    fn boxed(self: Box<Self>) {}

    #[task]
    fn shared(self: Rc<Self>) {}

    #[task]
    fn pinned(self: std::pin::Pin<&Self>) {}

    #[task]
    fn static_reference(&'static self) {}
}

fn main() {}
